#!/bin/sh
# Makes the database certwave of the role certwave in /data, unless it is there, and serves it.
set -eu
bin=$(echo /usr/lib/postgresql/*/bin)
if [ ! -s /data/db/PG_VERSION ]; then
  echo "$POSTGRES_PASSWORD" >/tmp/password
  "$bin/initdb" --pgdata /data/db --username certwave --pwfile /tmp/password --auth scram-sha-256 --encoding UTF8 >/dev/null
  echo 'host all all all scram-sha-256' >>/data/db/pg_hba.conf
  "$bin/pg_ctl" --pgdata /data/db --wait --options "-c listen_addresses= -c unix_socket_directories=/tmp" start >/dev/null
  PGPASSWORD=$POSTGRES_PASSWORD "$bin/createdb" --host /tmp --username certwave certwave
  "$bin/pg_ctl" --pgdata /data/db --wait stop >/dev/null
fi
exec "$bin/postgres" -D /data/db -c listen_addresses='*' -c unix_socket_directories=/tmp
