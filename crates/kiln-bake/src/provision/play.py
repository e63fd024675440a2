"""Plays a playbook on the root that this process has, and says how it failed in one line of JSON.

Ansible, its python and what they need are below TOOLS. What they write for themselves is below FOLDER, which no image has.
"""

import json
import os
import sys
import sysconfig

FOLDER = "/.kiln"
TOOLS = FOLDER + "/ansible"
# In memory; gone with the sandbox.
OWN = FOLDER + "/tmp"
TASK = FOLDER + "/provision.json"
FAILURE = OWN + "/failure.json"
# Kiln looks for it in the output.
MARK = "kiln-provision: "

# What an ansible.cfg beside the playbook can't say otherwise.
SETTINGS = {
    "ANSIBLE_HOME": OWN + "/home",
    "ANSIBLE_LOCAL_TEMP": OWN + "/local",
    # On the image's file system: a file that is copied is renamed from here to its place.
    "ANSIBLE_REMOTE_TEMP": FOLDER + "/remote",
    "ANSIBLE_CACHE_PLUGIN": "memory",
    "ANSIBLE_RETRY_FILES_ENABLED": "0",
    "ANSIBLE_LOG_PATH": OWN + "/log",
    "ANSIBLE_NOCOLOR": "1",
    "ANSIBLE_PIPELINING": "1",
    # A task that becomes another user could not read its own files, and nobody else is in the sandbox.
    "ANSIBLE_SHELL_ALLOW_WORLD_READABLE_TEMP": "1",
    "ANSIBLE_STDOUT_CALLBACK": "kiln",
    "ANSIBLE_CALLBACK_PLUGINS": TOOLS + "/kiln/callback",
    "ANSIBLE_DEPRECATION_WARNINGS": "0",
    # Units are enabled by links, and what would start one says that it does not.
    "SYSTEMD_OFFLINE": "1",
}


# Of the image. What is of the machine would make other images of the same playbook; a play's own `gather_subset` may ask for
# more.
FACTS = ["!all", "!min"] + """
    apparmor caps date_time distribution dns env fips local lsb network pkg_mgr platform python selinux service_mgr
    ssh_pub_keys user
""".split()


def inventory(groups):
    """Writes an inventory of one host that is in the given groups."""
    python = TOOLS + "/usr/bin/python3"
    host = "localhost ansible_connection=local ansible_python_interpreter=%s\n" % python
    path = OWN + "/hosts"
    with open(path, "w", encoding="utf-8") as file:
        file.write(host + "".join("[%s]\nlocalhost\n" % group for group in groups))
    return path


def play(task):
    """Returns the exit status, and why it is not zero where Ansible refused to play at all."""
    os.environ.update(SETTINGS)
    # OpenSSL would look for modules of its own in the image's root, and what tasks start is not to look here.
    libraries = os.path.join(TOOLS, "usr/lib", sysconfig.get_config_var("MULTIARCH"))
    loading = {"OPENSSL_MODULES": libraries + "/ossl-modules", "CRYPTOGRAPHY_OPENSSL_NO_LEGACY": "1"}
    os.environ.update(loading)
    from ansible.cli.playbook import PlaybookCLI
    from ansible.errors import AnsibleError

    from ansible.playbook.play import Play

    for name in loading:
        del os.environ[name]
    Play.fattributes["gather_subset"].default = lambda: FACTS
    extra = OWN + "/vars.json"
    with open(extra, "w", encoding="utf-8") as file:
        json.dump(task["vars"], file)
    arguments = ["ansible-playbook", "--inventory", inventory(task["groups"]), "--extra-vars", "@" + extra]
    if task["tags"]:
        arguments += ["--tags", ",".join(task["tags"])]
    cli = PlaybookCLI(arguments + [task["playbook"]])
    try:
        cli.parse()
        return cli.run(), {}
    except AnsibleError as error:
        return 1, {"message": str(error)}


def main():
    with open(TASK, encoding="utf-8") as file:
        task = json.load(file)
    status, refusal = play(task)
    noted = {}
    if os.path.exists(FAILURE):
        with open(FAILURE, encoding="utf-8") as file:
            noted = json.load(file)
    if status or noted.get("idle"):
        sys.stdout.flush()
        print("\n" + MARK + json.dumps(refusal or noted), flush=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
