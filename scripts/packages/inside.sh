# What scripts/packages/run checks, inside of the container that it booted. /packages has the packages and a Hub.
set -u
passed=0 failed=0
export DEBIAN_FRONTEND=noninteractive LC_ALL=C
cd /

# check NAME COMMAND ...: one line a check, and why it failed.
check() {
    local name=$1 out
    shift
    if out=$("$@" 2>&1); then
        passed=$((passed + 1)) && echo "ok    $name"
    else
        failed=$((failed + 1)) && echo "FAIL  $name: $*" && echo "$out" | tail -15 | sed 's/^/      /'
    fi
}

is() { [ "$1" = "$2" ] || { echo "got '$1', want '$2'"; return 1; }; }
has() { case "$1" in *"$2"*) ;; *) echo "got '$1', want '$2' in it"; return 1 ;; esac; }
not() { ! "$@"; }
fails_with() { local want=$1 out; shift; out=$("$@" 2>&1) && { echo "worked: $out"; return 1; }; has "$out" "$want"; }
prop() { systemctl show -P "$1" "${2:-p2pagent.service}"; }
# within SECONDS COMMAND ...: it works in the end.
within() { local n=$(($1 * 10)); shift; while ! "$@" >/dev/null 2>&1; do n=$((n - 1)); [ $n -gt 0 ] || { "$@"; return 1; }; sleep 0.1; done; }
kill_main() { local pid; pid=$(prop MainPID) && [ "$pid" -gt 1 ] && kill -s "$1" "$pid"; }
agent_uid() { stat -c %U "/proc/$(prop MainPID)"; }
deb() { echo /packages/"$1"/p2pagent_*.deb; }
rpm_of() { echo /packages/"$1"/p2pagent_*.rpm; }
tree() { (cd /var/lib/p2pagent/huggingface && find . -printf '%P %y %l %T@ %s\n' | sort | sha256sum); }

# --- the files
for kind in deb rpm tar.gz; do
    check "two builds of the $kind are equal" cmp /packages/new/*.$kind /packages/again/*.$kind
done
check "lintian finds no error but a static binary" lintian --allow-root --fail-on error --suppress-tags \
    statically-linked-binary,no-changelog,bogus-mail-host "$(deb new)"

# --- install
check "deb installs" dpkg -i "$(deb old)"
check "the service waits for its key" is "$(prop ActiveState)" inactive
check "the user is there" is "$(getent passwd p2pagent | cut -d: -f6)" /var/lib/p2pagent
check "the state folder is its own" is "$(stat -c '%U %a' /var/lib/p2pagent)" "p2pagent 750"
check "without a key the start fails" fails_with "Assertion failed" systemctl start p2pagent
check "units are without fault" systemd-analyze verify /usr/lib/systemd/system/p2pagent.service /usr/lib/systemd/system/p2pagent-wait@.service
check "manual pages have no warning" sh -c 'for p in /usr/share/man/man1/p2pagent*.gz; do man --warnings=all -E UTF-8 -l -Tutf8 "$p" 2>&1 >/dev/null; done | grep . && exit 1 || exit 0'
check "the shell completes" bash -c '. /usr/share/bash-completion/completions/p2pagent && complete -p p2pagent'
check "the schemas of all outputs are there" sh -c 'for c in config fetch ls status; do test -s /usr/share/p2pagent/schemas/$c.json || exit 1; done'

# --- the first start
token=hf_canarycanarycanary
mkdir -p /models/org && head -c 6000000 /dev/urandom >/models/weights.bin && echo '{}' >/models/config.json
systemd-run -q --unit=hub /packages/hubserver -listen 127.0.0.1:8080 -token $token -model org/name=/models -model org/my-model=/models
check "a key is made" p2pagent keygen /etc/p2pagent/swarm.key
printf %s $token >/etc/p2pagent/hf-token && chmod 600 /etc/p2pagent/hf-token
printf 'bind: 127.0.0.1\ngateway: ""\n' >>/etc/p2pagent/p2pagent.yaml
echo HF_ENDPOINT=http://127.0.0.1:8080 >/etc/default/p2pagent
check "the settings are valid" p2pagent config validate /etc/p2pagent/p2pagent.yaml
check "it starts" systemctl enable --now p2pagent
check "systemctl shows how it is" within 10 sh -c 'systemctl show -P StatusText p2pagent | grep "0 jobs, 0 other members"'
check "it runs as its user" is "$(agent_uid)" p2pagent
check "it has no capability" is "$(awk '/^CapBnd/ {print $2}' "/proc/$(prop MainPID)/status")" 0000000000000000
check "the exposure is at most 1.5" systemd-analyze security --threshold=15 p2pagent.service
check "and that of the wait unit" systemd-analyze security --threshold=20 p2pagent-wait@x.service
echo "      $(systemd-analyze security --no-pager p2pagent.service | tail -1)"
for dir in /usr /etc /var /var/lib/p2pagent/..; do
    check "its $dir is read-only" fails_with "Read-only" nsenter -t "$(prop MainPID)" -m touch $dir/x
done
mkdir /home/somebody
check "it does not see /home" is "$(nsenter -t "$(prop MainPID)" -m ls /home)" ""
check "the token comes by credential" sh -c "! tr '\0' '\n' </proc/$(prop MainPID)/environ | grep $token"

# --- wait and fetch
systemctl start --no-block "$(systemd-escape --template=p2pagent-wait@.service org/my-model)"
check "the wait unit waits" within 10 sh -c 'systemctl list-units --all "p2pagent-wait@*" | grep "activating"'
check "fetch, with the token" p2pagent fetch org/my-model
check "the wait unit is active" within 10 systemctl is-active "$(systemd-escape --template=p2pagent-wait@.service org/my-model)"
check "the wait unit told where" sh -c 'journalctl -u "p2pagent-wait@*" | grep /var/lib/p2pagent/huggingface/hub/models--org--my-model/snapshots/'
cat >/run/systemd/system/inference.service <<'TEXT'
[Unit]
Requires=p2pagent-wait@org-name.service
After=p2pagent-wait@org-name.service
[Service]
Type=oneshot
RemainAfterExit=yes
SupplementaryGroups=p2pagent
User=nobody
ExecStart=/bin/sh -c 'cat /var/lib/p2pagent/huggingface/hub/models--org--name/snapshots/*/config.json'
TEXT
systemctl daemon-reload
systemctl start --no-block inference
check "an inference unit waits for its model" within 10 sh -c 'systemctl list-jobs | grep -q "inference.*waiting"'
check "fetch of the other" p2pagent fetch org/name
check "and then runs, as another user of the group" within 10 systemctl is-active inference
useradd -r outsider
check "a user outside the group can't ask" fails_with "permission denied" setpriv --reuid=outsider --clear-groups p2pagent status --socket /run/p2pagent/agent.sock
check "the token is nowhere" sh -c "! journalctl | grep -v 'COMMAND\|hubserver' | grep $token && ! grep -r $token /var/lib/p2pagent /run/p2pagent"
printf 'models:\n  - org/my-model\n  - org/name\n' >>/etc/p2pagent/p2pagent.yaml
check "systemctl reload reads models" systemctl reload p2pagent
check "and they are kept" within 10 sh -c 'p2pagent status | grep "2 models: 2 here"'
echo '  - {ref: org/name}' >>/etc/p2pagent/p2pagent.yaml
check "a broken file fails the reload" not systemctl reload p2pagent
check "with the line" sh -c 'journalctl -u p2pagent | grep "p2pagent.yaml:.*org/name@main is named already"'
check "and changes nothing" sh -c 'systemctl is-active p2pagent && p2pagent status | grep "2 models: 2 here"'
sed -i '/^models:/,$d' /etc/p2pagent/p2pagent.yaml
kill_main HUP
check "SIGHUP reads it too" within 10 sh -c '! p2pagent status | grep ^desired'
check "systemd hears that it is over" is "$(prop ActiveState)" active
check "root may remove" p2pagent rm org/name --yes

# --- it comes back
mkdir -p /run/systemd/system/p2pagent.service.d
printf '[Service]\nWatchdogSec=3s\nRestartSec=100ms\n' >/run/systemd/system/p2pagent.service.d/quick.conf
systemctl daemon-reload && systemctl restart p2pagent
before=$(prop MainPID)
sleep 7
check "twice the watchdog's time, and it still runs" is "$(prop MainPID) $(prop NRestarts)" "$before 0"
kill_main STOP
check "a hung agent is killed by the watchdog" within 10 sh -c 'journalctl -u p2pagent | grep "Watchdog timeout"'
check "and started again" within 20 sh -c '[ "$(systemctl show -P NRestarts p2pagent)" = 1 ] && [ "$(systemctl show -P ActiveState p2pagent)" = active ]'
kill_main KILL
check "after SIGKILL too" within 20 sh -c '[ "$(systemctl show -P NRestarts p2pagent)" = 2 ] && [ "$(systemctl show -P ActiveState p2pagent)" = active ]'
check "with all that it had" p2pagent wait org/my-model --timeout 10s
rm -r /run/systemd/system/p2pagent.service.d && systemctl daemon-reload
check "a stop is no failure" sh -c 'systemctl stop p2pagent && [ "$(systemctl show -P Result p2pagent)" = success ]'
echo hf_wrong >/etc/p2pagent/hf-token
check "it starts with another token" systemctl start p2pagent
check "which the Hub refuses" sh -c 'p2pagent fetch org/name; [ $? = 5 ]'
systemctl stop p2pagent
rm /etc/p2pagent/hf-token
check "it starts without a token" systemctl start p2pagent
check "and asks as nobody" p2pagent fetch org/name
echo 'fetcher: 3' >>/etc/p2pagent/p2pagent.yaml
systemctl stop p2pagent
check "settings that make no sense fail the start, and are named" sh -c '! systemctl start p2pagent && journalctl -u p2pagent | grep "did you mean .*fetchers"'
sed -i '/^fetcher:/d' /etc/p2pagent/p2pagent.yaml
check "mended, it comes back by itself" within 20 systemctl is-active p2pagent

# --- the cache on another disk, as docs/operations.md says
mkdir -p /data && mount -t tmpfs none /data && install -d -o p2pagent -g p2pagent -m 750 /data/huggingface
mkdir -p /etc/systemd/system/p2pagent.service.d
printf '[Service]\nReadWritePaths=/data/huggingface\n' >/etc/systemd/system/p2pagent.service.d/data.conf
printf 'HF_HOME=/data/huggingface\nP2PAGENT_STATE_DIR=/data/huggingface/p2pagent\n' >>/etc/default/p2pagent
systemctl daemon-reload
check "it starts with its cache on another disk" systemctl restart p2pagent
check "and fetches to it" sh -c 'p2pagent fetch org/my-model | grep ^/data/huggingface/hub/'
rm -r /etc/systemd/system/p2pagent.service.d && sed -i '/^HF_HOME/d; /^P2PAGENT_STATE_DIR/d' /etc/default/p2pagent
systemctl daemon-reload && systemctl restart p2pagent

# --- upgrade, remove, purge
models=$(tree) before=$(prop MainPID)
check "deb upgrades, and keeps the settings" dpkg -i "$(deb new)"
check "the new one runs" sh -c '[ "$(p2pagent status --format json | grep -o "v0.2.0")" = v0.2.0 ]'
check "another process" not is "$(prop MainPID)" "$before"
check "the settings are kept" grep -q '^bind: 127.0.0.1' /etc/p2pagent/p2pagent.yaml
check "the cache is untouched" is "$(tree)" "$models"
check "remove stops it" sh -c 'dpkg -r p2pagent && ! systemctl is-active p2pagent && ! [ -e /run/p2pagent ]'
check "and leaves cache, settings and key" sh -c 'ls /etc/p2pagent/swarm.key /etc/p2pagent/p2pagent.yaml /var/lib/p2pagent/agent/identity.pem'
check "the cache is untouched by it" is "$(tree)" "$models"
check "installed again, it goes on" sh -c "dpkg -i $(deb new) && systemctl enable --now p2pagent && p2pagent wait org/my-model --timeout 10s"
check "purge takes settings, key and state" sh -c 'dpkg -P p2pagent && ! ls /etc/p2pagent /var/lib/p2pagent/agent'
check "and no model" is "$(tree)" "$models"
check "rpm installs" rpm -i --nodeps "$(rpm_of old)"
p2pagent keygen /etc/p2pagent/swarm.key 2>/dev/null && printf 'bind: 127.0.0.1\ngateway: ""\n' >>/etc/p2pagent/p2pagent.yaml
check "starts" systemctl start p2pagent
check "finds the models" p2pagent wait org/my-model --timeout 10s
check "upgrades" rpm -U --nodeps "$(rpm_of new)"
check "runs the new one" sh -c 'p2pagent status --format json | grep -q v0.2.0'
check "keeps the settings" grep -q '^bind: 127.0.0.1' /etc/p2pagent/p2pagent.yaml
check "is removed" sh -c 'rpm -e p2pagent && ! systemctl is-active p2pagent && ! [ -e /usr/bin/p2pagent ]'
check "and leaves the models" is "$(tree)" "$models"
check "purge with P2PAGENT_PURGE_CACHE=yes takes the models too" sh -c "dpkg -i $(deb new) && P2PAGENT_PURGE_CACHE=yes dpkg -P p2pagent && ! [ -e /var/lib/p2pagent ]"
check "the tarball has the same program" sh -c 'tar -xzOf /packages/new/p2pagent_*.tar.gz --wildcards "*/usr/bin/p2pagent" >/tmp/b && dpkg -x /packages/new/*.deb /tmp/d && cmp /tmp/b /tmp/d/usr/bin/p2pagent'

echo "$passed passed, $failed failed"
[ $failed = 0 ]
