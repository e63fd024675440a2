#!/bin/sh
# The peer: ten crun containers behind nginx, replaced by a script as people write them.
#
#   peer_replace.sh start FOLDER TINY PORT     nginx and ten containers of v1
#   peer_replace.sh replace FOLDER             ten of v2, reload, stop v1
#   peer_replace.sh stop FOLDER                everything away
set -eu
# crun refuses a hybrid cgroup layout; in a mount namespace of its own it sees the v1 one.
if [ -e /sys/fs/cgroup/unified ] && [ -z "${KILN_PEER_NS:-}" ]; then
    KILN_PEER_NS=1 exec unshare -m --propagation private sh -c 'umount /sys/fs/cgroup/unified; exec sh "$@"' - "$0" "$@"
fi
verb=$1 folder=$2
case $verb in
start | replace) ;;
stop)
    for id in $(crun list -q 2>/dev/null | grep '^kilnpeer-' || true); do crun delete -f "$id" || true; done
    [ ! -e "$folder/nginx.pid" ] || kill "$(cat "$folder/nginx.pid")"
    exit 0
    ;;
esac

containers() { # version, first port
    version=$1 first=$2
    for i in 0 1 2 3 4 5 6 7 8 9; do
        bundle=$folder/$version-$i
        mkdir -p "$bundle"
        port=$((first + i))
        sed -e "s|@PORT@|$port|; s|@VERSION@|$version|; s|@ROOT@|$folder/rootfs|" "$folder/config.json" >"$bundle/config.json"
        crun run -d --bundle "$bundle" "kilnpeer-$version-$i" >/dev/null 2>&1 </dev/null &
    done
    wait
    for i in 0 1 2 3 4 5 6 7 8 9; do
        until curl -sf -o /dev/null "http://127.0.0.1:$((first + i))/healthz"; do sleep 0.01; done
    done
}

upstream() { # first port
    {
        echo "upstream tiny { keepalive 64;"
        for i in 0 1 2 3 4 5 6 7 8 9; do echo "server 127.0.0.1:$(($1 + i));"; done
        echo "}"
    } >"$folder/upstream.conf.new"
    mv "$folder/upstream.conf.new" "$folder/upstream.conf"
}

if [ "$verb" = start ]; then
    tiny=$3 port=$4
    mkdir -p "$folder/rootfs/proc" "$folder/rootfs/dev" "$folder/rootfs/sys"
    cp "$tiny" "$folder/rootfs/tiny"
    cat >"$folder/config.json" <<'JSON'
{ "ociVersion": "1.0.0",
  "process": { "user": {"uid":0,"gid":0}, "args": ["/tiny"], "cwd": "/", "noNewPrivileges": true,
    "env": ["PORT=@PORT@", "VERSION=@VERSION@"] },
  "root": { "path": "@ROOT@", "readonly": true },
  "mounts": [ {"destination":"/proc","type":"proc","source":"proc"},
    {"destination":"/dev","type":"tmpfs","source":"tmpfs","options":["nosuid","mode=755"]} ],
  "linux": { "namespaces": [ {"type":"pid"},{"type":"mount"},{"type":"uts"},{"type":"ipc"} ] } }
JSON
    cat >"$folder/nginx.conf" <<CONF
worker_processes auto; pid $folder/nginx.pid; error_log $folder/error.log;
events { worker_connections 4096; }
http { access_log off; include $folder/upstream.conf;
  server { listen 127.0.0.1:$port backlog=4096;
    location / { proxy_pass http://tiny; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
CONF
    containers v1 21000
    upstream 21000
    nginx -c "$folder/nginx.conf"
else
    containers v2 22000
    upstream 22000
    kill -HUP "$(cat "$folder/nginx.pid")"
    sleep 0.2
    for i in 0 1 2 3 4 5 6 7 8 9; do crun kill "kilnpeer-v1-$i" TERM & done
    wait
fi
