# shellcheck shell=sh
# Read by the other scripts: what depends on the version of the server. The name of an image need not say it, so the image is asked.

image_major=$(postgres --version | sed 's/^[^0-9]*\([0-9]*\).*/\1/')

# Creates a cluster with these arguments of initdb. Before 17 there is no builtin locale provider: the C library's is used.
create_cluster() {
  for argument do
    shift
    [ "$argument" = --locale-provider=builtin ] && [ "$image_major" -lt 17 ] || set -- "$@" "$argument"
  done
  initdb --username=postgres --pwfile=/run/secrets/superuser_password --no-instructions --auth-local=peer --auth-host=scram-sha-256 "$@"
}

# Lets runtime.conf include the settings of a folder that an older server would not start with.
include_settings() {
  [ "$image_major" -lt 17 ] || ln -sf "$1/from_17.conf" /var/run/postgresql/from_17.conf
}
