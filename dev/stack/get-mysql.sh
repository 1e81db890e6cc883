#!/bin/bash
# MySQL's server from Debian sid into the folder FOLDER, with its own libraries and dynamic loader, so that
# nothing of the system changes: FOLDER/mysqld and FOLDER/mysqlbinlog run it. Signatures are apt's to check.
#   get-mysql.sh FOLDER
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)

# The mirror that this machine's own sources name for its own release.
. /etc/os-release
uris=$(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/$VERSION_CODENAME/InRelease'.*|\1|p")
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/deb" "$folder/root"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] ${uris%%$'\n'*} sid main" >"$folder/apt/sources.list"
cat >"$folder/apt/apt.conf" <<EOF
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$folder/apt";
APT::Sandbox::User "$(id -un)";
EOF
export APT_CONFIG=$folder/apt/apt.conf
apt-get update --quiet
mapfile -t packages < <(
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances mysql-server-core | grep -E '^(lib|mysql-)' | sort -u
)
(cd "$folder/deb" && apt-get download --quiet "${packages[@]}")
for package in "$folder"/deb/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
rm -rf "$folder/deb" "$folder/apt"

for program in usr/bin/mysqlbinlog usr/sbin/mysqld; do
  wrapper=$folder/$(basename $program)
  cat >"$wrapper" <<EOF
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/root
lib=\$root/usr/lib/x86_64-linux-gnu
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib" "\$root/$program" "\$@"
EOF
  chmod +x "$wrapper"
  "$wrapper" --no-defaults --version
done
