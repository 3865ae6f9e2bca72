#!/bin/sh
# Becomes the service, and runs its backup command, the first argument, when the server of the volumes asks for a dump: see its before_copy.sh.
set -u
backup=$1
shift
if [ "$#" = 0 ]; then
  echo 'the image has neither an entrypoint nor a command: set command of this service in slipway_extra_services' >&2
  exit 64
fi
(
  # The server of the volumes is another user.
  cd /slipway/backup && mkdir -p asked && chmod 1777 asked || exit
  while sleep 1; do
    for asked in asked/*; do
      [ -e "$asked" ] || continue
      rm -f "$asked"
      (cd / && eval "$backup") </dev/null >dump.new 2>error
      code=$?
      if [ "$code" = 0 ]; then mv dump.new dump; else rm -f dump.new; fi
      echo "${asked#asked/} $code $(tail -n 1 error)" >answer.new && mv answer.new answer
    done
  done
) &
exec "$@"
