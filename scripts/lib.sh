# Shell functions that the run scripts share. Source it with $here set to the script's folder.
root=$(cd "$here/../.." && pwd)
cache=$root/.cache
bin=$cache/bin

fail() { echo "${0##*/}: $*" >&2; exit 1; }

need_go() { command -v go >/dev/null || fail "the Go toolchain is missing: install Go (the version in go.mod or later) and put it in PATH"; }

need_root() { [ "$(id -u)" = 0 ] || fail "must run as root: it makes network namespaces (nothing outside them is touched)"; }

# need TOOL=PACKAGE ...: installs the Debian packages of the tools that are missing.
need() {
    local missing=() pair
    for pair; do command -v "${pair%%=*}" >/dev/null || missing+=("${pair#*=}"); done
    [ ${#missing[@]} = 0 ] && return
    command -v apt-get >/dev/null || fail "missing: ${missing[*]}; install these packages"
    echo "installing ${missing[*]}" >&2
    { apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}"; } >"$cache/apt.log" 2>&1 ||
        fail "apt-get could not install ${missing[*]}: see $cache/apt.log"
}

need_python() { # the scripts use hashlib.file_digest
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || fail "python3 3.11 or later is missing"
}

# venv NAME REQUIREMENTS: a Python of its own, $cache/NAME, with what the file pins.
venv() {
    local dir=$cache/$1 log=$cache/$1.log
    mkdir -p "$cache"
    cmp -s "$2" "$dir/requirements.txt" && return
    rm -rf "$dir"
    python3 -m venv "$dir" >"$log" 2>&1 || fail "python3 -m venv failed (Debian: apt-get install python3-venv): see $log"
    "$dir/bin/pip" install -q --disable-pip-version-check -r "$2" >>"$log" 2>&1 || fail "pip could not install $2: see $log"
    cp "$2" "$dir/requirements.txt"
}

# build [TAGS] NAME=PACKAGE ...: static binaries into $bin.
build() {
    local pair
    mkdir -p "$bin"
    for pair; do
        (cd "$root" && CGO_ENABLED=0 go build ${TAGS:+-tags "$TAGS"} -o "$bin/${pair%%=*}" "${pair#*=}") || fail "building ${pair%%=*} failed"
    done
}

lab_tools() { need_root; need_go; mkdir -p "$cache"; need_python; need ip=iproute2 tc=iproute2 nft=nftables mount=mount; }
