# The module's unit, without a NixOS around it: settings become the environment, secrets credentials.
{ pkgs, module }:
let
  inherit (pkgs) lib;
  evaluate =
    settings:
    (lib.evalModules {
      modules = [
        module
        {
          options = {
            assertions = lib.mkOption { type = lib.types.listOf lib.types.unspecified; };
            networking = lib.mkOption { type = lib.types.attrsOf lib.types.anything; };
            systemd = lib.mkOption { type = lib.types.attrsOf lib.types.anything; };
          };
          config._module.args = { inherit pkgs; };
          config.services.gameserver = {
            enable = true;
            package = pkgs.emptyDirectory;
          }
          // settings;
        }
      ];
    }).config;

  given = evaluate {
    openFirewall = true;
    settings = {
      listen = "[::]:7000";
      grace_seconds = 60;
      database_prepare = false;
      allowed_origins = [
        "https://a.example"
        "https://b.example"
      ];
      relay_games = [ { name = "chess"; } ];
      log = null;
    };
    secrets.database_url = "/run/secrets/url";
  };
  unit = given.systemd.services.gameserver;
  twice = evaluate {
    settings.database_url = "postgres://";
    secrets.database_url = "/run/secrets/url";
  };
  holds = configuration: lib.all (assertion: assertion.assertion) configuration.assertions;

  expected = {
    GAMESERVER_DATA_DIR = "%S/gameserver";
    GAMESERVER_LISTEN = "[::]:7000";
    GAMESERVER_ADMIN_LISTEN = "127.0.0.1:9090";
    GAMESERVER_GRACE_SECONDS = "60";
    GAMESERVER_DATABASE_PREPARE = "false";
    GAMESERVER_ALLOWED_ORIGINS = "https://a.example,https://b.example";
    GAMESERVER_RELAY_GAMES = ''[{"name":"chess"}]'';
    GAMESERVER_DATABASE_URL_FILE = "%d/database_url";
  };
in
assert lib.assertMsg (unit.environment == expected) (builtins.toJSON unit.environment);
assert unit.serviceConfig.LoadCredential == [ "database_url:/run/secrets/url" ];
assert given.networking.firewall.allowedTCPPorts == [ 7000 ];
assert holds given && !(holds twice);
pkgs.writeText "gameserver-unit.json" (builtins.toJSON unit.serviceConfig)
