#!/bin/sh
# Checks the rules of the application's user, which only a server can read, and a lower limit of memory or the end of evictions, before
# the server that runs gets them. Arguments: the folder of the new configuration, the port and the administrator's name.
set -eu

limit=$(sed -n 's/^maxmemory //p' "$1/runtime.conf")
policy=$(sed -n 's/^maxmemory-policy //p' "$1/runtime.conf")
# A server that does not answer has other problems, and this must not keep it from being repaired.
ask() { REDISCLI_AUTH=$(cat /run/secrets/admin_password) redis-cli -h 127.0.0.1 -p "$2" --user "$3" --no-auth-warning INFO 2>/dev/null; }
running=$(ask "$@" | tr -d '\r' || true)
value() { echo "$running" | sed -n "s/^$1:\(.*\)$/\1/p"; }
used=$(value used_memory) now=$(value maxmemory) evicted=$(value evicted_keys)
case $policy in
  # Any key may be evicted.
  allkeys-*) ;;
  *)
    if [ "${used:-0}" -gt "$limit" ] && [ "$limit" -lt "${now:-0}" ]; then
      echo "redis_maxmemory_mb: $((limit / 1048576)) MB are less than the $((used / 1048576 + 1)) MB that the data takes: with $policy, keys" \
        "would be evicted or writes refused; raise it, or set redis_maxmemory_policy to allkeys-lru if every key may be lost" >&2
      exit 1
    fi
    # A cache is always full. Without its evictions it would soon refuse writes.
    case $(value maxmemory_policy) in
      allkeys-*)
        if [ "${evicted:-0}" -gt 0 ] && [ "$used" -gt $((limit * 9 / 10)) ]; then
          echo "redis_maxmemory_policy: the server is full and has evicted $evicted keys, and with $policy it would refuse writes once no key" \
            "with an expiry is left: set it to $(value maxmemory_policy) if every key may be lost, as in a cache, or raise redis_maxmemory_mb" >&2
          exit 1
        fi
        ;;
    esac
    ;;
esac

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
