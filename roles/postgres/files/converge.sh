#!/bin/sh
# Waits for the server, which may have been started a moment ago, then runs the SQL on standard input as the superuser.
# Arguments go to psql.
set -eu

seconds=120
until pg_isready --quiet; do
  seconds=$((seconds - 1))
  if [ "$seconds" -le 0 ]; then
    echo "converge.sh: PostgreSQL did not accept connections within two minutes" >&2
    exit 1
  fi
  sleep 1
done
exec psql --no-psqlrc --quiet --no-password --set=ON_ERROR_STOP=1 --dbname=postgres "$@" --file=-
