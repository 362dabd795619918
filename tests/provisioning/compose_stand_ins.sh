#!/bin/sh
# compose_stand_ins.sh FOLDER POSTGRES: FOLDER becomes the root of an image in which this machine's PostgreSQL (its
# programs are in the folder POSTGRES) and RabbitMQ run, once /usr and /etc/alternatives are mounted into it. It takes the
# variables that the official images take.
set -eu
root=$1
postgres=$2
mkdir -p "$root/etc/ssl" "$root/etc/rabbitmq" "$root/run/postgresql" "$root/var/lib/postgresql/data" "$root/var/lib/rabbitmq" \
    "$root/var/log/rabbitmq" "$root/usr" "$root/etc/alternatives"
install -d -m 1777 "$root/tmp"
for folder in bin sbin lib lib64; do ln -s "usr/$folder" "$root/$folder"; done
ln -s ../run "$root/var/run"
for name in postgres rabbitmq; do getent passwd "$name"; done > "$root/etc/passwd"
for name in postgres rabbitmq; do getent group "$name"; done > "$root/etc/group"
printf 'passwd: files\ngroup: files\nhosts: files dns\n' > "$root/etc/nsswitch.conf"
cp /etc/ld.so.cache /etc/services "$root/etc/"
chown -R postgres:postgres "$root/run/postgresql" "$root/var/lib/postgresql"
chown -R rabbitmq:rabbitmq "$root/var/lib/rabbitmq" "$root/var/log/rabbitmq"
chmod 700 "$root/var/lib/postgresql/data"
# A tmpfs over a folder has the mode of the folder.
chmod 1777 "$root/var/log/rabbitmq"

cat > "$root/start" <<EOF
#!/bin/sh
set -eu
export RABBITMQ_LOGS=-
data=/var/lib/postgresql/data
if [ "\$1" = postgres ] && [ ! -s "\$data/PG_VERSION" ]; then
    (umask 077 && printf '%s\n' "\$POSTGRES_PASSWORD" > /tmp/password)
    initdb --encoding UTF8 --locale C --pgdata "\$data" --username "\$POSTGRES_USER" --pwfile /tmp/password --auth-local trust --auth-host scram-sha-256
    rm /tmp/password
    printf 'host all all all scram-sha-256\n' >> "\$data/pg_hba.conf"
    printf "listen_addresses = '*'\n" >> "\$data/postgresql.conf"
    pg_ctl --pgdata "\$data" --options "-c listen_addresses=" --wait start
    createdb --username "\$POSTGRES_USER" "\$POSTGRES_DB"
    pg_ctl --pgdata "\$data" --wait stop
fi
[ "\$1" != postgres ] || export PGDATA="\$data"
exec "\$@"
EOF
chmod 755 "$root/start"
