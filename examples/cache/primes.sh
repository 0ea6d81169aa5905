# Prints the prime numbers up to $1. Those that were found before are in the cache, and are not looked for again.
known=/var/cache/primes/list
last=1
[ -f "$known" ] && last=$(tail -n 1 "$known")
[ -f "$known" ] || : >"$known"
number=$((last + 1))
while [ "$number" -le "$1" ]; do
    divisor=2
    while [ $((divisor * divisor)) -le "$number" ] && [ $((number % divisor)) -ne 0 ]; do
        divisor=$((divisor + 1))
    done
    if [ $((divisor * divisor)) -gt "$number" ]; then
        echo "looked for $number" >&2
        echo "$number" >>"$known"
    fi
    number=$((number + 1))
done
awk -v most="$1" '$1 <= most' "$known"
