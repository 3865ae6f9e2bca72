#!/bin/sh
# Makes the running server take over the users and the settings of runtime.conf. Arguments: the port and the administrator's name.
# ACL LOAD would end every connection of each user, requests in flight too. ACL SETUSER ends none.
set -eu

port=$1
admin=$2
REDISCLI_AUTH=$(cat /run/secrets/admin_password)
export REDISCLI_AUTH
set -f
# shellcheck disable=SC2046 # Names and values are words of their own.
set -- $(sed '/^#/d' /etc/slipway/current/runtime.conf)

# One call sets all or none; -e makes an error reply an exit status.
ask() { redis-cli -e -h 127.0.0.1 -p "$port" --user "$admin" --no-auth-warning "$@"; }
ask CONFIG SET "$@"
users=/run/secrets/users.acl
# By standard input, as all users of a host see the arguments of its processes. There an error is an answer, whatever -e says.
sed 's/^user //; s/[\\"]/\\&/g; s/[^ ]\{1,\}/"&"/g; s/^/ACL SETUSER /' "$users" | while read -r rules; do
  answer=$(printf '%s\n' "$rules" | ask)
  [ "$answer" = OK ] || {
    echo "$answer" >&2
    exit 1
  }
done
for user in $(ask ACL USERS); do
  # The default user cannot be deleted; where the file does not name it, it is as in a new server.
  grep -q "^user $user " "$users" || [ "$user" = default ] || ask ACL DELUSER "$user"
done
