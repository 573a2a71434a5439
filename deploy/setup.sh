#!/bin/sh
# Makes a virtual environment from lock files; takes no time when they have not changed.
#   deploy/setup.sh .venv requirements.txt [further.txt …]
set -eu
venv=$1
shift

# The program `candelabra`: a console script of pip's would break where the path has a space, and
# the project itself is not installed. Typer is in every environment that can run it.
make_program() {
    "$venv/bin/python" -c 'import typer' 2>/dev/null || return 0
    root=$(printf '%s' "$PWD" | sed "s/'/'\\\\''/g")
    bin=$(cd "$venv/bin" && pwd | sed "s/'/'\\\\''/g")
    cat > "$venv/bin/candelabra" <<PROGRAM
#!/bin/sh
# Made by deploy/setup.sh.
root='$root'
PYTHONPATH=\$root\${PYTHONPATH:+:\$PYTHONPATH}
export PYTHONPATH
exec '$bin/python' -P -m cli "\$@"
PROGRAM
    chmod +x "$venv/bin/candelabra"
}

# A newer or other interpreter, a moved checkout and another lock each make the stamp differ.
stamp=$(printf '%s\n' "$PWD" | cat - "$@" | cksum)
if [ -x "$venv/bin/python" ] && [ "$(cat "$venv/.lock-stamp" 2>/dev/null || true)" = "$stamp" ] \
    && "$venv/bin/python" -c '' 2>/dev/null; then
    [ -x "$venv/bin/candelabra" ] || make_program
    exit 0
fi

supported='import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))'
python=
for candidate in ${PYTHON:-} python3 python3.11 python3.12 python3.13; do
    if command -v "$candidate" >/dev/null 2>&1 && "$candidate" -c "$supported" 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "setup: no Python 3.11 to 3.13 found; install one, or set PYTHON=/path/to/python3.11" >&2
    exit 1
fi

echo "setup: installing $* into $venv ($("$python" --version))"
rm -rf "$venv"
if ! "$python" -m venv "$venv" 2>/dev/null; then
    echo "setup: $python cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2
    exit 1
fi
"$venv/bin/python" -m pip install -q --disable-pip-version-check uv
# Bytecode is compiled now: every start of Airflow and dbt is twice as fast for it.
for lock in "$@"; do
    "$venv/bin/python" -m uv pip install -q --require-hashes --only-binary :all: --no-deps \
        --compile-bytecode --python "$venv/bin/python" -r "$lock"
done
make_program
printf '%s\n' "$stamp" > "$venv/.lock-stamp"
