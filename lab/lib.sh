# Shared by the scripts of this folder; sourced, never run.
# shellcheck shell=bash

set -euo pipefail

lab_folder=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck disable=SC2034
repository=$(dirname "$lab_folder")

say() { printf '%s\n' "$*"; }

fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}

# Seconds since the moment given as the value of EPOCHREALTIME, with one decimal.
seconds_since() {
  local now=$EPOCHREALTIME
  awk -v from="$1" -v to="$now" 'BEGIN { printf "%.1f s", to - from }'
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo >/dev/null; then
    sudo "$@"
  else
    fail "'$1' needs root, but sudo is not installed"
  fi
}

# A client that hangs on a half-dead engine must not hang us.
engine_answers() { timeout 30 docker info >/dev/null 2>&1; }

os_field() { (. /etc/os-release && eval "printf '%s' \"\${$1:-}\""); }

# Scripts of the lab that run at once would fail on apt's own locks, which it does not wait for.
locked_apt() {
  as_root flock /run/lock/slipway-apt.lock env DEBIAN_FRONTEND=noninteractive \
    apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"
}

apt_refresh() {
  # Package lists of the last twelve hours are fresh enough, and an update takes seconds.
  if [ "${1:-}" = force ] || [ -z "$(find /var/lib/apt/lists -name '*_Packages*' -mmin -720 2>/dev/null | head -n1)" ]; then
    locked_apt -qq update
  fi
}

apt_install() {
  local output
  # Hundreds of lines that matter only when it fails.
  output=$(locked_apt -qq -y -o Dpkg::Use-Pty=0 install --no-install-recommends "$@" 2>&1 </dev/null) || {
    printf '%s\n' "$output" >&2
    fail "apt could not install $*"
  }
}

# Installs the named packages that are missing.
apt_need() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing: ${missing[*]}" >&2
  apt_refresh
  apt_install "${missing[@]}"
}

# One line of what apt says about the main component of this machine's own distribution.
apt_target() {
  apt-get indextargets --format "\$($1)" 'Created-By: Packages' "Codename: $(os_field VERSION_CODENAME)" 'Component: main' |
    head -n1
}

# The address of the Debian archive that this machine uses.
apt_uri() {
  local uri
  uri=$(apt_target REPO_URI)
  if [ -z "$uri" ]; then
    apt_refresh force
    uri=$(apt_target REPO_URI)
  fi
  [ -n "$uri" ] || fail "apt has no source for the main component of $(os_field VERSION_CODENAME)"
  printf '%s' "${uri%/}"
}

# The keyring that the machine's own source is checked with.
apt_keyring() {
  local entry file keyring
  entry=$(apt_target SOURCESENTRY)
  file=${entry%:*}
  keyring=$(sed -nE 's/^Signed-By: *(\/[^ ]+).*/\1/p; s/.*signed-by=(\/[^] ,]+).*/\1/p' "$file" 2>/dev/null | head -n1)
  printf '%s' "${keyring:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

# Makes trixie's packages known to apt on an older Debian, at a priority below all that the machine has.
add_trixie() {
  [ "$(os_field ID)" = debian ] || fail "this is $(os_field PRETTY_NAME), not Debian: install $1 yourself, and run this again"
  if [ "$(os_field VERSION_CODENAME)" = trixie ]; then
    apt_refresh
    return
  fi
  as_root tee /etc/apt/sources.list.d/slipway-trixie.sources >/dev/null <<STANZA
Types: deb
URIs: $(apt_uri)
Suites: trixie
Components: main
Signed-By: $(apt_keyring)
STANZA
  as_root tee /etc/apt/preferences.d/slipway-trixie.pref >/dev/null <<'STANZA'
Package: *
Pin: release n=trixie
Pin-Priority: 100
STANZA
  apt_refresh force
}

# Has the named packages, and only those, installed from trixie.
apt_from_trixie() {
  add_trixie "$1"
  [ "$(os_field VERSION_CODENAME)" = trixie ] || as_root tee "/etc/apt/preferences.d/slipway-trixie-${1//./-}.pref" >/dev/null <<STANZA
Package: $*
Pin: release n=trixie
Pin-Priority: 990
STANZA
}

# The network of all labs of this machine.
# shellcheck disable=SC2034
network=slipway-lab

# Only one script at a time may pick addresses, ports and names.
one_at_a_time() {
  exec 8>"${TMPDIR:-/tmp}/slipway-lab-$(id -u).lock"
  flock 8
}

# Addresses in the lower half are given to hosts, for good; the engine hands out the upper half.
ensure_network() {
  local second
  ! docker network inspect "$network" >/dev/null 2>&1 || return 0
  # Not a range that an engine, this one's or a host's own, takes for its networks by itself.
  for second in $(seq 213 222); do
    docker network create --label slipway.lab=network --subnet "10.$second.0.0/23" --ip-range "10.$second.1.0/24" \
      --gateway "10.$second.0.1" "$network" >/dev/null 2>&1 && return
  done
  fail "no address range is free for the network $network"
}

# What a user may set; the same in all scripts.
lab=${LAB:-lab}
[[ $lab =~ ^[a-z][a-z0-9-]{0,30}$ ]] || fail "LAB is '$lab': it must have only lower-case letters, digits and dashes, and begin with a letter"
[ "$lab" != prod ] || fail "LAB is 'prod', but inventories/prod is not a lab: choose another name"
# shellcheck disable=SC2034
state=$repository/.lab/$lab
# shellcheck disable=SC2034
inventory=$repository/inventories/$lab

# Whether an environment was made by lab/up as a whole, which may then replace and remove it. Another may be a user's.
is_made_here() {
  [ "$(cat "$1/.gitignore" 2>/dev/null)" = '*' ] && [ -e "$1/group_vars/all/lab.yml" ]
}

# Names of this lab's containers, running or not.
lab_containers() {
  docker ps --all --filter "label=slipway.lab.name=$lab" --format '{{.Names}}'
}
