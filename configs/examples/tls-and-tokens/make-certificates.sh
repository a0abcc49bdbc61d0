#!/bin/sh
# Make an authority, a certificate for this machine and one for a caller, to try things out.
# They last 30 days. For anything real, take certificates from your own authority.
set -eu
umask 077
folder="$(dirname "$0")/tls"
mkdir -p "$folder"
cd "$folder"

new_key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1"; }

sign() {  # name, subject, extensions
  new_key "$1.key"
  openssl req -new -key "$1.key" -subj "$2" -out "$1.csr"
  printf '%s\n' "$3" > "$1.ext"
  openssl x509 -req -in "$1.csr" -CA authority.pem -CAkey authority.key -CAcreateserial \
    -days 30 -extfile "$1.ext" -out "$1.pem" 2> /dev/null
  rm "$1.csr" "$1.ext"
}

new_key authority.key
openssl req -x509 -new -key authority.key -days 30 -subj "/CN=Sluice example authority" \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign -out authority.pem
sign gateway "/CN=localhost" "subjectAltName=DNS:localhost,IP:127.0.0.1"
sign caller "/CN=example-caller" "extendedKeyUsage=clientAuth"
rm -f authority.srl
echo "certificates are in $folder"
