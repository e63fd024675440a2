#!/bin/sh
# Stands in for the toolchains of the projects here: makes what it is asked for, with how it was called in it.
# Under its own name it makes itself known under all of theirs.
set -e
name=${0##*/}
tools="go cargo rustc npm yarn pnpm node pip pip3 poetry uv python python3 mvn gradle java jlink apt-get apk dnf
    microdnf yum make cmake gcc g++ zig ghc dotnet composer bundle gem rails mix sbt hugo tini groupadd useradd
    addgroup adduser"
if [ "$name" = toolchain ]; then
    for tool in $tools; do ln -s toolchain "/usr/bin/$tool"; done
    exit
fi
file() { mkdir -p "$(dirname "$1")"; echo "$name $all" > "$1"; }
program() { mkdir -p "$(dirname "$1")"; echo "#!/bin/sh" > "$1"; chmod 755 "$1"; }
all=$*
out=
id=990
previous=
words=
for word; do
    case $previous in -o | --output | --root | -t | --target | --out-dir) out=$word ;; -u | -g) id=$word ;; esac
    case $word in
        --prefix=* | --target=* | --output=* | DESTDIR=*) out=${word#*=} ;;
        -*) ;;
        *) words="$words $word" ;;
    esac
    previous=$word
done
# A group that is given by its name has the number of all that are made here.
case $id in *[!0-9]*) id=990 ;; esac
case "$name $1 $2" in
    "go build"* | "go install"*) program "${out:-${GOPATH:-/go}/bin/app}" ;;
    "go mod"*) file "${GOPATH:-/go}/pkg/mod/cache" ;;
    "go test"*) ;;
    "cargo chef prepare") file recipe.json ;;
    "cargo chef cook") file target/release/deps ;;
    "cargo install"*) program "${out:-/usr/local/cargo}/bin/app" ;;
    "cargo "*) program "${CARGO_TARGET_DIR:-target}/release/app" ;;
    "npm ci"* | "npm install"* | "yarn install"* | "pnpm install"*) file node_modules/.installed ;;
    "npm prune"*) file node_modules/.pruned ;;
    "npm run"* | "yarn build"* | "pnpm build"* | "yarn run"* | "pnpm run"*) file dist/index.html; file dist/server.js ;;
    "pnpm deploy"*) file "${words##* }/server.js" ;;
    "pip install"* | "pip3 install"*) file "${out:-/usr/local/lib/python3/site-packages}/installed" ;;
    "pip wheel"* | "poetry export"* | "poetry build"*) file dist/app.whl ;;
    "poetry install"* | "uv sync"*) program .venv/bin/app ;;
    "python -m venv" | "python3 -m venv") program "$3/bin/python"; cp "$0" "$3/bin/pip" ;;
    "python "* | "python3 "*) file staticfiles/collected ;;
    "mvn "*) file target/app.jar ;;
    "gradle "*) file build/libs/app.jar ;;
    "java "*) file extracted/application/app.class; file extracted/dependencies/lib.jar ;;
    "jlink "*) program "${out:-/jre}/bin/java" ;;
    "apt-get install"* | "apk add"* | "dnf install"* | "microdnf install"* | "yum install"*)
        for word in ${words#* * }; do file "/var/lib/packages/$word"; done ;;
    "apt-get update"* | "apk update"*) mkdir -p /var/lib/apt/lists; date > /var/lib/apt/lists/index ;;
    "apt-get "* | "apk "* | "dnf "* | "microdnf "* | "yum "*) ;;
    "make install"*) program "$out/usr/local/bin/app" ;;
    "make "* | "cmake --build"*) program "${out:-build}/app" ;;
    "cmake --install"*) program /usr/local/bin/app ;;
    "cmake "*) file build/CMakeCache.txt ;;
    "gcc "* | "g++ "* | "rustc "* | "zig "* | "ghc "*) program "${out:-a.out}" ;;
    "dotnet publish"*) file "${out:-publish}/app.dll" ;;
    "dotnet "*) file obj/project.assets.json ;;
    "composer install"*) file vendor/autoload.php ;;
    "bundle install"* | "gem install"*) file /usr/local/bundle/gems ;;
    "rails "* | "bundle exec"*) file public/assets/app.js ;;
    "mix release"*) program _build/prod/rel/app/bin/app ;;
    "mix "*) file deps/fetched ;;
    "sbt "*) file target/universal/stage/bin/app ;;
    "hugo "*) file "${out:-public}/index.html" ;;
    "tini "* | "node "*) ;;
    "groupadd "* | "addgroup "*) echo "${words##* }:x:$id:" >> /etc/group ;;
    "useradd "* | "adduser "*) echo "${words##* }:x:$id:$id::/home/${words##* }:/bin/sh" >> /etc/passwd ;;
    *) echo "$name: nothing stands in for: $all" >&2; exit 1 ;;
esac
