#!/bin/sh
# In the guest, in the host's tree: udev, then pytest. Its exit code and reports go to the host through /run/out.
project=$1 python=$2 kit=$3 pytest_words=$4
export PATH="$kit/udev:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin" HOME=/run/tmp TMPDIR=/run/tmp LANG=C.UTF-8
export PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONPATH="$project/tests"
export TILLGATE_GUEST=1 TILLGATE_TEST_DEADLINE_S=90 # an emulated processor, and the host may be busy
export PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 # hypothesis alone would cost a few seconds here

mkdir -p /usr/lib/udev/rules.d /etc/udev/rules.d
cp "$kit"/udev/rules.d/* /usr/lib/udev/rules.d/
echo "tillgate-scanners:x:987:" >>/etc/group
cp "$project"/ops/udev/*.rules /etc/udev/rules.d/
LD_LIBRARY_PATH=$kit/udev systemd-udevd --daemon
LD_LIBRARY_PATH=$kit/udev udevadm trigger --action=add --sysname-match='ttyUSB*' --sysname-match='video*'
LD_LIBRARY_PATH=$kit/udev udevadm settle

cd "$project" || exit
echo "guest: Linux $(uname -r), $("$kit/busybox" cut -d' ' -f1 /proc/uptime) s after its start"
: >/run/out/started
eval "set -- $pytest_words"
"$python" -m pytest tests/hardware/guest --confcutdir=tests/hardware/guest -p pytest_asyncio.plugin -p pytest_timeout \
  -p no:cacheprovider --timeout=300 --junitxml=/run/out/junit.xml --color=no -v "$@"
echo $? >/run/out/exit
dmesg >/run/out/dmesg.txt
exec "$kit/busybox" poweroff -f
