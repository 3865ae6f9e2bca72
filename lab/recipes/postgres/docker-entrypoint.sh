#!/bin/bash
# Starts PostgreSQL, on an empty data folder after creating the cluster: with the variables, the init scripts and the
# refusals of the official image.
set -Eeo pipefail

stop() {
  printf '%s\n' "$@" >&2
  exit 1
}

# NAME or NAME_FILE, not both.
value_of() {
  local name=$1 file=$1_FILE
  [ -z "${!name:-}" ] || [ -z "${!file:-}" ] || stop "error: both $name and $file are set (but are exclusive)"
  if [ -n "${!file:-}" ]; then
    printf '%s' "$(<"${!file}")"
  else
    printf '%s' "${!name:-$2}"
  fi
}

run_psql() {
  PGHOST='' PGHOSTADDR='' psql --set ON_ERROR_STOP=1 --no-password --no-psqlrc --username "$user" "$@"
}

create_cluster() {
  local options=()
  [ -n "$password" ] || [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ] || stop \
    'Error: Database is uninitialized and superuser password is not specified.' \
    '       Set POSTGRES_PASSWORD or POSTGRES_PASSWORD_FILE to a non-empty value.' \
    '       POSTGRES_HOST_AUTH_METHOD=trust allows all connections without a password; it is not recommended.'
  [ -z "${POSTGRES_INITDB_WALDIR:-}" ] || options+=(--waldir "$POSTGRES_INITDB_WALDIR")
  # A descriptor, not a file: the password is never on disk.
  # shellcheck disable=SC2086
  eval 'initdb --username="$user" --pwfile=<(printf "%s\n" "$password") "${options[@]}" '"${POSTGRES_INITDB_ARGS:-}"
  {
    printf '\n'
    printf 'host all all all %s\n' "${POSTGRES_HOST_AUTH_METHOD:-$(postgres -C password_encryption)}"
  } >>"$PGDATA/pg_hba.conf"
}

run_init_files() {
  local file
  for file in /docker-entrypoint-initdb.d/*; do
    [ -e "$file" ] || continue
    printf '%s: running %s\n' "$0" "$file"
    # shellcheck disable=SC1090
    case $file in
      *.sh) if [ -x "$file" ]; then "$file"; else . "$file"; fi ;;
      *.sql) run_psql --dbname "$database" --file "$file" ;;
      *.sql.gz) gunzip -c "$file" | run_psql --dbname "$database" ;;
      *.sql.xz) xzcat "$file" | run_psql --dbname "$database" ;;
      *.sql.zst) zstd -dc "$file" | run_psql --dbname "$database" ;;
      *) printf '%s: ignoring %s\n' "$0" "$file" ;;
    esac
  done
}

initialise() {
  local user password database
  user=$(value_of POSTGRES_USER postgres)
  password=$(value_of POSTGRES_PASSWORD '')
  database=$(value_of POSTGRES_DB "$user")
  export POSTGRES_USER=$user POSTGRES_DB=$database POSTGRES_PASSWORD=$password
  ls /docker-entrypoint-initdb.d/ >/dev/null
  create_cluster
  export PGPASSWORD=$password
  # Until all is set up, only this script may connect.
  pg_ctl --pgdata "$PGDATA" --wait --options "$(printf '%q ' "$@" -c listen_addresses= -p "${PGPORT:-5432}")" start
  if [ "$database" != postgres ]; then
    run_psql --dbname postgres --set name="$database" <<<'CREATE DATABASE :"name";'
  fi
  run_init_files
  pg_ctl --pgdata "$PGDATA" --mode fast --wait stop
  unset PGPASSWORD POSTGRES_PASSWORD
  printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

[ "${1:0:1}" != - ] || set -- postgres "$@"

wants_help() {
  local argument
  for argument; do
    case $argument in -'?' | --help | --describe-config | -V | --version) return 0 ;; esac
  done
  return 1
}

if [ "$1" = postgres ] && ! wants_help "$@"; then
  if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA" /run/postgresql
    chmod 0700 "$PGDATA"
    chmod 03775 /run/postgresql || true
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    find /run/postgresql \! -user postgres -exec chown postgres '{}' +
    exec setpriv --reuid postgres --regid postgres --init-groups "${BASH_SOURCE[0]}" "$@"
  fi
  mkdir -p "$PGDATA"
  chmod 0700 "$PGDATA" || true
  if [ -s "$PGDATA/PG_VERSION" ]; then
    printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
  else
    initialise "${@:2}"
  fi
fi
exec "$@"
