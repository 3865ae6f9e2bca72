#!/bin/sh
# Tries a new image and configuration, in a throw-away container without the data: trial.sh FILE MAJOR VOLUME [ARGUMENT OF INITDB...]
# FILE is postgresql.conf; MAJOR is that of the data in VOLUME, 0 where there is none.
set -eu

file=$1
folder=${file%/*}
major=$2
volume=$3
shift 3

# The image's name may not say which version it has.
sh "$folder/check.sh" "$folder" "$major" "$volume"
# shellcheck source-path=SCRIPTDIR source=version.sh
. "$folder/version.sh"
# These are of another time where there is data.
[ "$major" = 0 ] || set --
# As start.sh does it, but small.
create_cluster --pgdata=/tmp/trial --no-sync "$@" --wal-segsize=1 >/tmp/initdb.log 2>&1 ||
  { cat /tmp/initdb.log; exit 1; }
include_settings "$folder"
pg_ctl --pgdata=/tmp/trial --wait --timeout=50 start \
  --options="-c config_file=$file -c data_directory=/tmp/trial -c listen_addresses= -c unix_socket_directories=/tmp"
# Those that the server itself has differ by its version; others may be in the data.
unknown=$(psql --no-psqlrc --quiet --tuples-only --no-align --set=ON_ERROR_STOP=1 --set="desired=$(cat "$folder/desired.json")" --host=/tmp \
  --username=postgres --dbname=postgres <<'SQL'
select string_agg(distinct membership, ', ')
from jsonb_each(:'desired'::jsonb -> 'roles') as role (name, attributes), jsonb_array_elements_text(attributes -> 'member_of') as membership
where membership like 'pg\_%' and not exists (select from pg_roles where rolname = membership)
SQL
)
pg_ctl --pgdata=/tmp/trial --mode=immediate stop
if [ -n "$unknown" ]; then
  echo "postgres_users names roles that this version of PostgreSQL does not have: $unknown; remove or correct them" >&2
  exit 1
fi
