#!/bin/sh
# Lays Tillgate down on a Debian-like machine with systemd:
#   sudo sh ops/install.sh gateway       a gateway, its backup timer
#   sudo sh ops/install.sh terminal      a store's till, with rules that let it read scanners
# May be run again (an upgrade): configuration and what was stored stay as they are. DESTDIR=/some/root only lays files.
# WHEEL=tillgate-0.1.0-py3-none-any.whl installs that instead of this checkout; PYTHON=python3.13 another interpreter.
set -eu

part=${1:-}
case $part in
  gateway) extras=gateway,postgres ;;
  terminal) extras=terminal ;;
  *) echo "usage: sh ops/install.sh gateway|terminal" >&2; exit 2 ;;
esac

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
root=${DESTDIR:-}
python=${PYTHON:-python3}
if [ -z "$root" ] && [ "$(id -u)" != 0 ]; then
  echo "run it as root, or set DESTDIR to lay the files elsewhere" >&2
  exit 1
fi

lay() { # lay MODE SOURCE TARGET
  install -D -m "$1" "$here/$2" "$root$3"
}

lay 0644 systemd/tillgate.sysusers /usr/lib/sysusers.d/tillgate.conf
install -d -m 0755 "$root/etc/tillgate"
if [ "$part" = gateway ]; then
  lay 0644 systemd/tillgate.service /etc/systemd/system/tillgate.service
  lay 0644 systemd/tillgate-backup.service /etc/systemd/system/tillgate-backup.service
  lay 0644 systemd/tillgate-backup.timer /etc/systemd/system/tillgate-backup.timer
  lay 0644 systemd/tillgate.tmpfiles /usr/lib/tmpfiles.d/tillgate.conf
else
  lay 0644 systemd/tillgate-terminal.service /etc/systemd/system/tillgate-terminal.service
  lay 0644 systemd/tillgate-terminal.tmpfiles /usr/lib/tmpfiles.d/tillgate-terminal.conf
  lay 0644 udev/70-tillgate-scanners.rules /etc/udev/rules.d/70-tillgate-scanners.rules
fi
[ -z "$root" ] || exit 0

systemd-sysusers /usr/lib/sysusers.d/tillgate.conf
[ -x /opt/tillgate/bin/python ] || "$python" -m venv /opt/tillgate
/opt/tillgate/bin/pip install --quiet --upgrade "${WHEEL:-$here/..}[$extras]"
systemctl daemon-reload
if [ "$part" = gateway ]; then
  systemd-tmpfiles --create /usr/lib/tmpfiles.d/tillgate.conf
  # The units name this file, so it must be there; as it is made, every setting in it is a comment.
  [ -e /etc/tillgate/gateway.toml ] || /opt/tillgate/bin/tillgate config example > /etc/tillgate/gateway.toml
  echo "next: sudo -u tillgate TILLGATE_CONFIG=/etc/tillgate/gateway.toml TILLGATE_DATA=/var/lib/tillgate /opt/tillgate/bin/tillgate init"
  echo "      systemctl enable --now tillgate tillgate-backup.timer"
else
  systemd-tmpfiles --create /usr/lib/tmpfiles.d/tillgate-terminal.conf
  udevadm control --reload
  udevadm trigger
  echo "next: sudo -u tillgate /opt/tillgate/bin/tillgate terminal enrol --url https://GATEWAY --token - \\"
  echo "        --config /etc/tillgate/terminal.toml --state /var/lib/tillgate-terminal"
  echo "      systemctl enable --now tillgate-terminal"
fi
