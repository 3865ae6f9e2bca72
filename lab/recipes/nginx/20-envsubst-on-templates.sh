#!/bin/sh
# Renders /etc/nginx/templates/*.template into /etc/nginx/conf.d with the variables that are set.
set -e
templates=${NGINX_ENVSUBST_TEMPLATE_DIR:-/etc/nginx/templates}
suffix=${NGINX_ENVSUBST_TEMPLATE_SUFFIX:-.template}
target=${NGINX_ENVSUBST_OUTPUT_DIR:-/etc/nginx/conf.d}
[ -d "$templates" ] || exit 0
if ! [ -w "$target" ]; then
  echo "$0: $templates exists, but $target is not writable" >&2
  exit 0
fi
# Only variables that exist: nginx has variables of its own, which look the same.
variables=$(env | sed -nE "/^${NGINX_ENVSUBST_FILTER:-}/s/^([A-Za-z_][A-Za-z0-9_]*)=.*/\${\1} /p" | tr -d '\n')
find "$templates" -follow -type f -name "*$suffix" | while read -r template; do
  file=$target/${template#"$templates"/}
  file=${file%"$suffix"}
  mkdir -p "$(dirname "$file")"
  envsubst "$variables" <"$template" >"$file"
done
