#!/bin/sh
# First process of the container. Arguments: the folder of the data, the name of its snapshot, and the folder and the name of its append-only
# file. On a volume that another server wrote, the data may be in a snapshot, which a server with an append-only file does not read, or in an
# append-only file of another name: without this step it would begin empty.
set -eu

data=$1 snapshot=$1/$2 folder=$1/$3 file=$4

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
exec redis-server /etc/slipway/current/redis.conf
