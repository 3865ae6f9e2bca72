#!/bin/sh
# First process of the container. Arguments: the folder of the data, the name of its snapshot, and the folder and the name of its append-only
# file. A server that keeps an append-only file does not read a snapshot, as a volume has that another server wrote: without this step it
# would begin empty.
set -eu

data=$1 snapshot=$1/$2 folder=$1/$3 file=$4

if [ -n "$file" ] && [ -e "$snapshot" ] && ! [ -e "$folder" ] && ! [ -e "$data/$file" ]; then
  echo "start.sh: the volume has the snapshot $2 and no append-only file: the file begins with the snapshot" >&2
  # Complete before it has its name. The snapshot itself stays.
  rm -rf "$folder.new"
  mkdir "$folder.new"
  ln "$snapshot" "$folder.new/$file.1.base.rdb"
  echo "file $file.1.base.rdb seq 1 type b" >"$folder.new/$file.manifest"
  mv "$folder.new" "$folder"
fi
exec redis-server /etc/slipway/current/redis.conf
