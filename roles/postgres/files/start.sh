#!/bin/sh
# First process of the container: prepares an empty volume, then becomes PostgreSQL. The image's own entrypoint is not
# used because it leaves the superuser's password in the server's environment.
set -eu

say() { echo "start.sh: $*" >&2; }

# shellcheck source-path=SCRIPTDIR source=version.sh
. /etc/slipway/current/version.sh

# The file in a volume that says that its superuser is named postgres. It holds a word where another program has created the cluster.
has_superuser=slipway.superuser

not_ours() {
  say "user $(id -u) cannot use $1, which belongs to user $(stat -c %u "$1")."
  say "The Alpine and Debian images use different user ids: set postgres_image back to the family that created the data, or dump and restore."
  exit 1
}

if ! { [ -r "$PGDATA" ] && [ -w "$PGDATA" ] && [ -x "$PGDATA" ]; }; then
  not_ours "$PGDATA"
fi
if [ -e "$PGDATA/PG_VERSION" ]; then
  [ -r "$PGDATA/PG_VERSION" ] || not_ours "$PGDATA/PG_VERSION"
  data_major=$(cat "$PGDATA/PG_VERSION")
  if [ "$data_major" != "$image_major" ]; then
    say "the volume holds data of PostgreSQL $data_major, and the image has PostgreSQL $image_major."
    say "A new major version cannot read it: set postgres_image back to version $data_major, or dump and restore."
    exit 1
  fi
  # A cluster that another program created may know its superuser by another name, and converge logs in as postgres. Asked once a volume,
  # in single-user mode, which needs no name; a copy that is still to be recovered has one.
  if ! [ -e "$PGDATA/$has_superuser" ] && ! [ -e "$PGDATA/recovery.signal" ] && ! [ -e "$PGDATA/standby.signal" ]; then
    say "the volume is taken over: making sure that it has a superuser named postgres"
    # The role that a cluster was created with stays a superuser: it cannot become one of the inventory. Nothing is changed then.
    chmod 0700 "$PGDATA"
    postgres --single -D "$PGDATA" -c config_file=/etc/slipway/current/postgresql.conf -c exit_on_error=on template1 >/dev/null <<'SQL'
do $$ declare taken text; variable text; begin select rolname, case rolname when doc #>> '{database,owner}' then 'postgres_owner_name' when doc ->> 'writer' then 'postgres_app_name' else 'the variable with this name' end into taken, variable from pg_roles, (select pg_read_file('/etc/slipway/current/desired.json')::jsonb) as desired (doc) where pg_roles.oid = 10 and rolname <> 'postgres' and doc -> 'roles' ? rolname; if taken is not null then raise exception 'the superuser that this cluster was created with (POSTGRES_USER) is named %, as is a role of the inventory: set % to another name', taken, variable; end if; end $$
do $$ begin if not exists (select from pg_roles where rolname = 'postgres') then create role postgres; end if; end $$
alter role postgres superuser login
SQL
    echo adopted >"$PGDATA/$has_superuser"
  fi
else
  # The data is created next to its final place and PG_VERSION moves last, so that an interrupted run leaves nothing that
  # looks like a database.
  fresh=$PGDATA/.initdb
  rm -rf "$fresh"
  for entry in "$PGDATA"/* "$PGDATA"/.[!.]*; do
    case $entry in "$PGDATA/*" | "$PGDATA/.[!.]*" | "$PGDATA/lost+found") continue ;; esac
    say "the volume holds ${entry##*/} but no PG_VERSION: it is neither a database nor empty. Nothing was changed."
    exit 1
  done
  say "the volume is empty: creating a database cluster of PostgreSQL $image_major"
  create_cluster --pgdata="$fresh" "$@"
  for entry in "$fresh"/*; do
    [ "$entry" = "$fresh/PG_VERSION" ] || mv "$entry" "$PGDATA/"
  done
  : >"$PGDATA/$has_superuser"
  mv "$fresh/PG_VERSION" "$PGDATA/"
  rmdir "$fresh"
fi

chmod 0700 "$PGDATA"
include_settings /etc/slipway/current
exec postgres -c config_file=/etc/slipway/current/postgresql.conf
