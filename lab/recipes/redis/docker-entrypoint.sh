#!/bin/sh
# An option or a configuration file as the first argument is for redis-server, which never runs as root.
set -e
case $1 in
  -* | *.conf) set -- redis-server "$@" ;;
esac
if [ "$1" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis '{}' +
  exec setpriv --reuid redis --regid redis --clear-groups "$0" "$@"
fi
# Only this user may read the append-only file.
[ "$(umask)" != 0022 ] || umask 0077
# In a container the network decides who may connect; without a configuration the official build says so too.
if [ "$1" = redis-server ] && [ $# = 1 ]; then
  set -- redis-server --protected-mode no
fi
exec "$@"
