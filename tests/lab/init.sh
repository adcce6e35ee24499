# First process of a room: makes /proc that of the room, prints its own pid as the outside sees it, and lives until its input
# ends, that is, until the test process lets go of it or dies. Its end is the end of everything in the pid namespace.
set -e
mkdir -p "$1/outside"
mount --bind /proc "$1/outside"
read -r pid rest <"$1/outside/self/stat"
mount -t proc proc /proc
echo "$pid"
# With this signal ignored the kernel reaps orphans itself.
exec env --ignore-signal=CHLD cat
