#!/bin/sh
# Checks a new configuration before the server reads it: check.sh FOLDER
set -eu

folder=$1
# Parses all of the files; pg_hba.conf is looked at by reload.sql, as only a server can.
postgres -C shared_buffers -c "config_file=$folder/postgresql.conf"

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
