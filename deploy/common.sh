# What backup.sh, restore.sh and upgrade.sh share. They run in the folder of docker-compose.yml; compose is steered as
# usual (COMPOSE_FILE, COMPOSE_PROJECT_NAME, --env-file as COMPOSE_ENV_FILES).
say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
fail() { printf '\033[31m%s\033[0m\n' "$*" >&2; exit 1; }

# said_by_compose EXPRESSION: of the whole configuration, `found`, as compose has worked it out
said_by_compose() { docker compose config --format json | python3 -c "import json, sys; found = json.load(sys.stdin); print($1)"; }
config_folder() {
  said_by_compose 'next(v["source"] for v in found["services"]["code"]["volumes"] if v["target"] == "/config")'
}
