"""Shows a play as Ansible does, and notes the task that failed last, which is the one that ended the play if it failed."""

import json

from ansible.plugins.callback.default import CallbackModule as Default

DOCUMENTATION = """
name: kiln
type: stdout
short_description: notes the task that ended a play
description: the default output, and a file that names the last task that failed
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

FAILURE = "/.kiln/tmp/failure.json"
# A program says at its end why it failed, and an error is not a log.
LINES_MAX = 10
MESSAGE_CHARS_MAX = 4096


class CallbackModule(Default):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "kiln"

    def v2_runner_on_failed(self, result, ignore_errors=False):
        # The default drops what it has shown, such as the results of a loop.
        if not ignore_errors:
            self._note(result)
        super().v2_runner_on_failed(result, ignore_errors=ignore_errors)

    def v2_runner_on_unreachable(self, result):
        self._note(result)
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_stats(self, stats):
        super().v2_playbook_on_stats(stats)
        if not stats.processed:
            write({"idle": True})

    def _note(self, result):
        task = result._task
        write({
            "task": task.get_name(),
            "place": task.get_path(),
            "module": task.action,
            "message": self._message(result._result)[:MESSAGE_CHARS_MAX],
        })

    def _message(self, result):
        parts = [str(result.get("msg") or result.get("censored") or "")]
        for item in result.get("results", []):
            if isinstance(item, dict) and item.get("failed"):
                parts.append("%s: %s" % (self._get_item_label(item), self._message(item)))
        for name in ("module_stderr", "stderr", "module_stdout", "stdout"):
            lines = str(result.get(name) or "").strip().splitlines()
            if lines:
                parts += lines[-LINES_MAX:]
                break
        return "\n".join(part for part in parts if part)


def write(note):
    with open(FAILURE, "w", encoding="utf-8") as file:
        json.dump(note, file)
