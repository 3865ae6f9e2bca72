#!/bin/sh
# Logs in as the application and asks for an answer; writes nothing. Arguments: the port and the application's name.
# The answer is compared because redis-cli exits 0 on NOAUTH.
REDISCLI_AUTH=$(cat /run/secrets/app_password) || exit 1
export REDISCLI_AUTH
answer=$(redis-cli -h 127.0.0.1 -p "$1" --user "$2" --no-auth-warning PING 2>&1)
[ "$answer" = PONG ] || { echo "$answer"; exit 1; }
