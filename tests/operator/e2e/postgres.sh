#!/bin/sh
# What the image of PostgreSQL for the end-to-end test runs: as much of the usual image's first start
# as the operator asks for.
set -eu
programs=/usr/lib/postgresql/POSTGRES_VERSION/bin
if ! [ -s "$PGDATA/PG_VERSION" ]; then
    printf '%s' "$POSTGRES_PASSWORD" >/tmp/password
    "$programs/initdb" -D "$PGDATA" -U "$POSTGRES_USER" --pwfile=/tmp/password --auth=scram-sha-256 -E UTF8 --locale=C
    echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
    echo "CREATE DATABASE $POSTGRES_DB" | "$programs/postgres" --single -D "$PGDATA" postgres
fi
exec "$programs/postgres" -D "$PGDATA" -c "listen_addresses=*" "$@"
