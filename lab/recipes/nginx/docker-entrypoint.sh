#!/bin/sh
# Before nginx starts, the files of /docker-entrypoint.d run in order: *.envsh is sourced, *.sh is run.
set -e
if [ "$1" = nginx ] || [ "$1" = nginx-debug ]; then
  for file in /docker-entrypoint.d/*; do
    [ -x "$file" ] || continue
    # shellcheck disable=SC1090
    case $file in
      *.envsh) . "$file" ;;
      *.sh) "$file" ;;
    esac
  done
fi
exec "$@"
