#!/usr/bin/env bash
# Installs what the tests and the sandbox need from Debian. Says clearly what it can't install.
set -euo pipefail

declare -A package_of=([bwrap]=bubblewrap [nft]=nftables [ip]=iproute2 [setpriv]=util-linux [pasta]=passt [curl]=curl
  [systemd-analyze]=systemd)
missing=()
for program in "${!package_of[@]}"; do
  command -v "$program" >/dev/null 2>&1 || [ -x "/usr/sbin/$program" ] || missing+=("${package_of[$program]}")
done
[ ${#missing[@]} -eq 0 ] && exit 0

if ! command -v apt-get >/dev/null 2>&1; then
  echo "system-packages: missing: ${missing[*]}. This machine has no apt-get; install them with its own package manager." >&2
  exit 1
fi
if [ "$(id -u)" -ne 0 ]; then
  echo "system-packages: missing: ${missing[*]}. Install them: sudo apt-get install -y ${missing[*]}" >&2
  exit 1
fi
echo "system-packages: installing ${missing[*]}" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
