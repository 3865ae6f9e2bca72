#!/bin/sh
# A session of redis-cli in the container of Redis, or one command, given as standard input: $0 is the port, $1 the administrator,
# $2 read or write. Passwords are read and written where no process list shows them.
client() {
  user=$1
  shift
  redis-cli -e -p "$port" --user "$user" --no-auth-warning "$@"
}
session() {
  if [ -t 0 ]; then
    client "$1"
    return
  fi
  command=$(cat)
  case $(printf %s "$command" | sed 's/^ *//' | tr '[:lower:]' '[:upper:]') in
    ACL\ * | AUTH\ * | CONFIG\ * | HELLO\ * | MIGRATE\ *)
      # They may hold a password, and all users of a host see the arguments of its processes. So by standard input, where an error is an
      # answer, whatever -e says; it begins with a code in capitals.
      answer=$(printf '%s\n' "$command" | client "$1")
      printf '%s\n' "$answer"
      case $answer in [[:upper:]][[:upper:]]*\ *) return 1 ;; esac
      ;;
    # xargs splits at blanks, and knows quotes.
    *) printf '%s\n' "$command" | xargs redis-cli -e -p "$port" --user "$1" --no-auth-warning ;;
  esac
}
port=$0
admin=$1
REDISCLI_AUTH=$(cat /run/secrets/admin_password)
export REDISCLI_AUTH
if [ "$2" = write ]; then
  session "$admin"
  exit
fi
# No user of Redis may only read. This one ends with the session; what a session that was cut off has left ends here.
client "$admin" ACL USERS | grep '^slipway-reader-' | while read -r left; do
  kill -0 "${left##*-}" 2>/dev/null || client "$admin" ACL DELUSER "$left" >/dev/null </dev/null
done
reader=slipway-reader-$$
password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
trap 'client "$admin" ACL DELUSER "$reader" >/dev/null' EXIT
trap 'exit 129' HUP INT TERM
# The last rule for a command holds, and INFO and SLOWLOG are dangerous ones.
echo "ACL SETUSER $reader reset on >$password ~* &* +@read +@connection -@dangerous +info +memory|usage +slowlog|get" |
  client "$admin" >/dev/null
(REDISCLI_AUTH=$password; session "$reader")
