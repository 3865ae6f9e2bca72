#!/bin/sh
# First process of the container. Arguments: the folder of the data, the name of its snapshot, the folder and the name of its append-only
# file, and the administrator's name. On a volume that another server wrote, the data may be in a snapshot, which a server with an append-only file does not read, or in an
# append-only file of another name: without this step it would begin empty. Such data, or that of a restore, may also be larger than
# maxmemory: keys would be evicted at the first write, or no write accepted.
set -eu

data=$1 snapshot=$1/$2 folder=$1/$3 file=$4 admin=$5
config=/etc/slipway/current
# Holds the least maxmemory that the data was once smaller than, so that a usual start measures nothing.
fits=$data/.fits_maxmemory

# Runs the server without clients and without a limit until it has read the data, and with both if it fits: so that it is read once.
serve_what_fits() {
  place=$(mktemp -d)
  REDISCLI_AUTH=$(cat /run/secrets/admin_password)
  export REDISCLI_AUTH
  ask() { redis-cli -e -s "$place/socket" --user "$admin" --no-auth-warning "$@" 2>/dev/null; }
  redis-server "$config/redis.conf" --port 0 --unixsocket "$place/socket" --maxmemory 0 &
  server=$!
  # The first process of a container does not end at a signal that it does not handle.
  trap 'kill "$server"; wait "$server"; exit 143' TERM INT
  until [ "$(ask PING)" = PONG ]; do
    if ! kill -0 "$server" 2>/dev/null; then
      echo "start.sh: the server ended while it read the data: see above, or raise redis_memory_mb if nothing is there" >&2
      exit 1
    fi
    sleep 0.2
  done
  used=$(ask INFO memory | sed -n 's/^used_memory:\([0-9]*\).*/\1/p')
  if [ "$used" -gt "$limit" ]; then
    ask SHUTDOWN NOSAVE >/dev/null || true
    wait "$server" || true
    echo "start.sh: the data takes $((used / 1048576 + 1)) MB of memory, and redis_maxmemory_mb is $((limit / 1048576)): with" \
      "$policy, keys would be evicted or writes refused. Raise redis_memory_share, redis_memory_mb or redis_maxmemory_mb," \
      "or set redis_maxmemory_policy to allkeys-lru if every key may be lost." >&2
    exit 1
  fi
  echo "$limit" >"$fits"
  ask CONFIG SET maxmemory "$limit" >/dev/null
  trap 'kill "$server"' TERM INT
  ask CONFIG SET port "$(sed -n 's/^port //p' "$config/redis.conf")" >/dev/null
  rm -rf "$place"
  unset REDISCLI_AUTH
  # A signal ends a wait before the server has ended.
  while kill -0 "$server" 2>/dev/null; do
    status=0
    wait "$server" || status=$?
  done
  exit "$status"
}

# Of a start that was interrupted.
rm -rf "$folder.new" "$folder/temp-$file.manifest"
if ! [ -e "$folder/$file.manifest" ] && ! [ -e "$data/$file" ]; then
  for other in "$data"/*/*.manifest "$data"/*.aof; do
    [ -e "$other" ] || continue
    case $other in
      *.manifest) wanted=$folder/$file.manifest more='folder and manifest alone' ;;
      *) wanted=$data/$file more='the file' ;;
    esac
    echo "start.sh: the volume has the append-only file $other, and this server reads $wanted: it would begin empty." >&2
    echo "start.sh: While no server uses the volume, rename it to that ($more), or delete it if its data is not needed." >&2
    exit 1
  done
fi
if [ -e "$snapshot" ] && ! [ -e "$folder" ] && ! [ -e "$data/$file" ]; then
  echo "start.sh: the volume has the snapshot $2 and no append-only file: the file begins with the snapshot" >&2
  # Complete before it has its name. The snapshot itself stays.
  mkdir "$folder.new"
  ln "$snapshot" "$folder.new/$file.1.base.rdb"
  echo "file $file.1.base.rdb seq 1 type b" >"$folder.new/$file.manifest"
  mv "$folder.new" "$folder"
fi
limit=$(sed -n 's/^maxmemory //p' "$config/runtime.conf")
policy=$(sed -n 's/^maxmemory-policy //p' "$config/runtime.conf")
known=$(cat "$fits" 2>/dev/null || true)
case $policy in
  # Any key may be evicted.
  allkeys-*) ;;
  *)
    if { [ -e "$folder" ] || [ -e "$data/$file" ]; } && { [ -z "$known" ] || [ "$limit" -lt "$known" ]; }; then
      serve_what_fits
    fi
    [ -n "$known" ] || echo "$limit" >"$fits"
    ;;
esac
exec redis-server "$config/redis.conf"
