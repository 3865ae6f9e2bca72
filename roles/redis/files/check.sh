#!/bin/sh
# Checks the rules of the application's user, which only a server can read, before the one that runs gets them: check.sh FOLDER
set -eu

place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
printf 'user check off %s\n' "$(cat "$1/rules")" >"$place/users.acl"
redis-server --port 0 --unixsocket "$place/socket" --dir "$place" --save '' --aclfile "$place/users.acl" >"$place/log" 2>&1 &
until redis-cli -s "$place/socket" ping >/dev/null 2>&1; do
  if ! kill -0 $! 2>/dev/null; then
    sed -n 's/.*users\.acl:[0-9]*: */redis_app_rules: /p' "$place/log" >&2
    exit 1
  fi
  sleep 0.05
done
kill $!
