# Completion of lit-credit, printed by `lit-credit completion`.@ZSH@
_lit_credit() {
    local cur="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words="" shipped=""
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=( $(compgen -W "@COMMANDS@" -- "$cur") )
        return
    fi
    # `--config=FILE` is three words.
    if [ "$cur" = "=" ]; then
        cur=""
    elif [ "$before" = "=" ]; then
        before="${COMP_WORDS[COMP_CWORD-2]}"
    fi
    case "$before" in
        -c|--config) shipped="@CONFIGS@" ;;
        --grid) shipped="@GRIDS@" ;;
    esac
    if [ -n "$shipped" ]; then
        local IFS="
"
        type compopt > /dev/null 2>&1 && compopt -o filenames 2> /dev/null
        COMPREPLY=( $(compgen -f -- "$cur") $(compgen -W "$shipped" -- "$cur") )
        return
    fi
    case "${COMP_WORDS[1]}:$before" in
        completion:completion) words="@SHELLS@" ;;
@CHOICES@
    esac
    if [ -z "$words" ]; then
        case "$cur" in
            -*)
                case "${COMP_WORDS[1]}" in
@OPTIONS@
                esac
                ;;
        esac
    fi
    # Without a word the shell completes files.
    COMPREPLY=( $(compgen -W "$words" -- "$cur") )
}
complete -o default -F _lit_credit lit-credit
