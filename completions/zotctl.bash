# bash completion of zotctl, made by zotctl.cli.docs.

# The words up to the cursor, as they were typed: COMP_WORDS is cut at each of COMP_WORDBREAKS, so NAME:TAG is three.
_zotctl_words() {
    local line=${COMP_LINE:0:COMP_POINT} part
    words=()
    for part in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} == 0 || $line == [[:space:]]* ]]; then
            line=${line#"${line%%[![:space:]]*}"}
            words+=("")
        fi
        [[ $line == "$part"* ]] || part=$line
        words[-1]+=$part
        line=${line#"$part"}
    done
}

# What the shell puts in place of the last part only has to begin there.
_zotctl_reply() {
    local i part=${current##*[$COMP_WORDBREAKS]}
    [[ $current == [\"\']* ]] && part=${current:1}
    for i in "${!COMPREPLY[@]}"; do
        COMPREPLY[i]=${COMPREPLY[i]#"${current%"$part"}"}
    done
}

_zotctl_choices() {
    COMPREPLY=($(compgen -W "$1" -- "$current"))
    _zotctl_reply
}

_zotctl_store() {
    local IFS=$'\n'
    COMPREPLY=($("${words[0]/#~/$HOME}" __complete "$1" "${words[@]:1}" 2>/dev/null))
    _zotctl_reply
}

_zotctl_names() {
    [[ $current == *[:@]* ]] || compopt -o nospace
    _zotctl_store "$1"
}

_zotctl_files() {
    compopt -o default
}

_zotctl_directories() {
    compopt -o dirnames
}

_zotctl() {
    local words current before
    COMPREPLY=()
    _zotctl_words
    current=${words[-1]} before=
    ((${#words[@]} > 1)) && before=${words[-2]}
    [[ $current == --*=* ]] && before=${current%%=*} current=${current#*=}
    ((${#words[@]} > 2)) || { _zotctl_choices "serve gc scrub dedupe verify import-layout help -h --help -V --version"; return; }
    case "${words[1]} $before" in
        "serve --root")
            _zotctl_directories; return ;;
        "serve --listen" | "serve --workers" | "serve --max-manifest-size" | "serve --drain")
            :; return ;;
        "serve --config")
            _zotctl_files; return ;;
        "serve --as")
            _zotctl_store repositories; return ;;
        "serve --compat")
            _zotctl_choices "docker2s2"; return ;;
        "serve --log-level")
            _zotctl_choices "debug info warning error"; return ;;
        "serve --log-format")
            _zotctl_choices "json text"; return ;;
        "serve --output")
            _zotctl_choices "text json jsonl"; return ;;
        "gc --root")
            _zotctl_directories; return ;;
        "gc --config" | "gc --metrics-file" | "gc --report")
            _zotctl_files; return ;;
        "gc --repo")
            _zotctl_store repositories; return ;;
        "gc --delay" | "gc --max-duration")
            :; return ;;
        "gc --untagged")
            _zotctl_choices "none pushed all"; return ;;
        "gc --explain")
            _zotctl_names present; return ;;
        "gc --restore")
            _zotctl_names restorable; return ;;
        "gc --output")
            _zotctl_choices "text json jsonl"; return ;;
        "scrub --root")
            _zotctl_directories; return ;;
        "scrub --config" | "scrub --from" | "scrub --metrics-file" | "scrub --report")
            _zotctl_files; return ;;
        "scrub --repo")
            _zotctl_store repositories; return ;;
        "scrub --workers" | "scrub --rate" | "scrub --requests" | "scrub --max-duration")
            :; return ;;
        "scrub --output")
            _zotctl_choices "text json jsonl"; return ;;
        "dedupe --root")
            _zotctl_directories; return ;;
        "dedupe --config" | "dedupe --metrics-file")
            _zotctl_files; return ;;
        "dedupe --repo")
            _zotctl_store repositories; return ;;
        "dedupe --workers" | "dedupe --rate" | "dedupe --max-duration")
            :; return ;;
        "dedupe --output")
            _zotctl_choices "text json jsonl"; return ;;
        "verify --root")
            _zotctl_directories; return ;;
        "verify --config" | "verify --metrics-file" | "verify --report")
            _zotctl_files; return ;;
        "verify --repo")
            _zotctl_store repositories; return ;;
        "verify --rate" | "verify --max-duration")
            :; return ;;
        "verify --output")
            _zotctl_choices "text json jsonl"; return ;;
        "import-layout --root")
            _zotctl_directories; return ;;
        "import-layout --config" | "import-layout --tags" | "import-layout --to" | "import-layout --metrics-file")
            _zotctl_files; return ;;
        "import-layout --repo" | "import-layout --only")
            _zotctl_store repositories; return ;;
        "import-layout --tag")
            _zotctl_store tags; return ;;
        "import-layout --rate" | "import-layout --max-duration")
            :; return ;;
        "import-layout --output")
            _zotctl_choices "text json jsonl"; return ;;
    esac
    case ${words[1]} in
        serve)
            if [[ $current == -* ]]; then _zotctl_choices "--root --listen --config --commit --no-commit --dedupe --no-dedupe --workers --read-only --as --no-delete --compat --max-manifest-size --drain --log-level --log-format --metrics --ignore-sync --show-config --output --json -h --help"; else _zotctl_files; fi ;;
        gc)
            if [[ $current == -* ]]; then _zotctl_choices "--root --config --repo --delay --untagged --explain --restore --history --list-trash --trust-clock --dry-run --exit-code --max-duration --metrics-file --report -q --quiet -v --verbose --output --json -h --help"; else _zotctl_names past; fi ;;
        scrub)
            if [[ $current == -* ]]; then _zotctl_choices "--root --config --repo --repair --from --quick --workers --restart --rate --requests --dry-run --max-duration --metrics-file --report -q --quiet -v --verbose --output --json -h --help"; else :; fi ;;
        dedupe)
            if [[ $current == -* ]]; then _zotctl_choices "--root --config --repo --undo --workers --rate --dry-run --max-duration --metrics-file -q --quiet -v --verbose --output --json -h --help"; else :; fi ;;
        verify)
            if [[ $current == -* ]]; then _zotctl_choices "--root --config --show-origin --repo --deep --probe --usage --rate --max-duration --metrics-file --report -q --quiet -v --verbose --output --json -h --help"; else _zotctl_files; fi ;;
        import-layout)
            if [[ $current == -* ]]; then _zotctl_choices "--root --config --repo --tag --all --overwrite --mirror --link --move --tags --tagged-only --to --only --rate --dry-run --max-duration --metrics-file -q --quiet -v --verbose --output --json -h --help"; else _zotctl_files; fi ;;
        help)
            if [[ $current == -* ]]; then _zotctl_choices ""; else _zotctl_choices "serve gc scrub dedupe verify import-layout"; fi ;;
    esac
}

complete -F _zotctl zotctl
