#!/bin/sh
# Checks a new configuration before the server reads it, and whether the server can read the data of a volume, whose major version is 0 where
# there is none: check.sh FOLDER [MAJOR VOLUME]
set -eu

folder=$1
data_major=${2:-0}
# shellcheck source-path=SCRIPTDIR source=version.sh
. "$folder/version.sh"
if [ "$data_major" != 0 ] && [ "$data_major" != "$image_major" ]; then
  echo "the volume $3 holds data of PostgreSQL $data_major, and the image has PostgreSQL $image_major, which cannot read it: set postgres_image" \
    "to version $data_major, or move the data as docs/backup.md says under \"Another major version of PostgreSQL\"" >&2
  exit 1
fi
# Parses all of the files; pg_hba.conf is looked at by reload.sql, as only a server can.
postgres -C shared_buffers -c "config_file=$folder/postgresql.conf"

wanted() { postgres -C "$1" -c "config_file=$folder/postgresql.conf"; }
slots=$(wanted max_replication_slots) level=$(wanted wal_level) prepared=$(wanted max_prepared_transactions)
# A server ends at its start where its data has more than these settings allow. No trial has that data, so the server that runs on it is
# asked. One that does not answer has other problems, and this must not keep it from being repaired.
refused=$(psql --no-psqlrc --quiet --tuples-only --no-align --dbname=postgres --username=postgres \
  --set=slots="$slots" --set=level="$level" --set=prepared="$prepared" 2>/dev/null <<'SQL' || true
select format('max_replication_slots is %s, and the server has %s replication slots: %s', :slots, count(*), string_agg(slot_name, ', '))
from pg_replication_slots having count(*) > :slots
union all
select format('wal_level is %s, and the server has logical replication slots: %s', :'level', string_agg(slot_name, ', '))
from pg_replication_slots where slot_type = 'logical' and :'level' <> 'logical' having count(*) > 0
union all
select format('max_prepared_transactions is %s, and the server has %s prepared transactions', :prepared, count(*))
from pg_prepared_xacts having count(*) > :prepared
SQL
)
if [ -n "$refused" ]; then
  echo "postgres_settings: it would not start again with these; raise them, or remove what needs them: $refused" >&2
  exit 1
fi

missing=
# Their list in desired.json, a line each.
extensions=$(sed -n '/"extensions": \[$/,/\]/s/^ *"\([a-z0-9_$-]*\)",\{0,1\}$/\1/p' "$folder/desired.json")
for place in /usr/share/postgresql/*/extension /usr/share/postgresql*/extension /usr/local/share/postgresql/extension; do
  # Every server has this one. An image that keeps its extensions elsewhere says itself what it lacks, when one is created.
  [ -e "$place/plpgsql.control" ] || continue
  for extension in $extensions; do
    [ -e "$place/$extension.control" ] || missing="$missing $extension"
  done
  break
done
if [ -n "$missing" ]; then
  echo "postgres_extensions names what the image does not have:$missing; remove it, or set postgres_image to an image that has it" >&2
  exit 1
fi
