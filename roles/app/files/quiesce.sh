#!/bin/sh
# Becomes the service. While the server of the volumes copies a volume of this service, what the service writes must be whole: before that runs
# the first argument, and after it the second, also if the copy fails or its server dies. See before_copy.sh of role volume_server.
set -u
before=$1
after=$2
shift 2
if [ "$#" = 0 ]; then
  echo 'the image has neither an entrypoint nor a command: set command of this service in app_services' >&2
  exit 64
fi
(
  # The server of the volumes is another user.
  cd /slipway/backup && mkdir -p asked here answers && chmod 1777 asked || exit
  me=$(cat /etc/hostname)
  # Also while a command runs.
  while sleep 1; do : >"here/$me"; done &
  held=
  while sleep 1; do
    if [ -z "$held" ]; then
      for asked in asked/*; do
        id=${asked#asked/}
        [ -e "$asked" ] && [ ! -e "answers/$id.$me" ] || continue
        (cd / && eval "$before") </dev/null >/dev/null 2>"error.$me"
        echo "$? $(tail -n 1 "error.$me")" >"answer.$me" && mv "answer.$me" "answers/$id.$me"
        held=$id beat='' silent=0
        break
      done
    else
      # Whoever asked writes another number each second.
      last=$beat
      beat=$(cat "asked/$held" 2>/dev/null) || silent=60
      if [ "$beat" = "$last" ]; then silent=$((silent + 1)); else silent=0; fi
      if [ ! -e "asked/$held" ] || [ "$silent" -ge 60 ]; then
        (cd / && eval "$after") </dev/null
        [ -e "asked/$held" ] || rm -f "answers/$held.$me"
        held=
      fi
    fi
  done
) &
exec "$@"
