#!/bin/bash
# A server of another release of Debian into the folder FOLDER, with its own libraries and dynamic loader, so that
# nothing of the system changes: FOLDER/<name> runs each PROGRAM. Signatures are apt's to check.
#   get-debian.sh FOLDER RELEASE "PACKAGE..." PROGRAM...    as in: get-debian.sh DIR sid mysql-server-core usr/sbin/mysqld
set -euo pipefail
mkdir -p "$1"
folder=$(cd "$1" && pwd)
release=$2
read -ra wanted <<<"$3"
shift 3

# The mirror that this machine's own sources name for its own release.
. /etc/os-release
uris=$(apt-get update --print-uris | sed -n "s|^'\(.*\)/dists/$VERSION_CODENAME/InRelease'.*|\1|p")
mkdir -p "$folder/apt/lists/partial" "$folder/apt/archives/partial" "$folder/deb" "$folder/root"
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
echo "deb [signed-by=$keyring] ${uris%%$'\n'*} $release main" >"$folder/apt/sources.list"
cat >"$folder/apt/apt.conf" <<END
Dir::Etc::sourcelist "$folder/apt/sources.list";
Dir::Etc::sourceparts "-";
Dir::State::lists "$folder/apt/lists";
Dir::State::status "/dev/null";
Dir::Cache "$folder/apt";
APT::Sandbox::User "$(id -un)";
END
export APT_CONFIG=$folder/apt/apt.conf
apt-get update --quiet
mapfile -t packages < <(
  apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts --no-breaks --no-replaces \
    --no-enhances "${wanted[@]}" | grep -E '^(lib|mysql-|mariadb-)' | sort -u
)
(cd "$folder/deb" && apt-get download --quiet "${packages[@]}")
for package in "$folder"/deb/*.deb; do dpkg-deb --extract "$package" "$folder/root"; done
rm -rf "$folder/deb" "$folder/apt"

# A script of the package finds its programs in their own places, so that is where the wrappers are.
for program in "$@"; do
  name=$(basename "$program")
  wrapper=$folder/root/$program
  mv "$wrapper" "$wrapper.real"
  cat >"$wrapper" <<END
#!/bin/sh
root=\$(dirname "\$(readlink -f "\$0")")/../..
lib=\$root/usr/lib/x86_64-linux-gnu
exec "\$lib/ld-linux-x86-64.so.2" --library-path "\$lib" "\$root/$program.real" "\$@"
END
  chmod +x "$wrapper"
  ln -s "root/$program" "$folder/$name"
  "$folder/$name" --no-defaults --version
done
