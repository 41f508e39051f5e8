# A NixOS module: the server as a service that can touch nothing but its own state.
flake:
{
  config,
  lib,
  pkgs,
  ...
}:
let
  cfg = config.services.gameserver;
  inherit (lib) mkOption types;

  variable = name: "GAMESERVER_${lib.toUpper name}";
  # A list of words as the server takes it; anything else but text is JSON.
  value =
    setting:
    if lib.isString setting then
      setting
    else if lib.isList setting && lib.all lib.isString setting then
      lib.concatStringsSep "," setting
    else
      builtins.toJSON setting;
  settings = lib.filterAttrs (_: setting: setting != null) cfg.settings;
in
{
  options.services.gameserver = {
    enable = lib.mkEnableOption "gameserver, a multiplayer game server";

    package = mkOption {
      type = types.package;
      default = flake.packages.${pkgs.stdenv.hostPlatform.system}.default;
      defaultText = lib.literalMD "the flake's own";
      description = "The package that has `bin/gameserver`.";
    };

    settings = mkOption {
      type = types.submodule {
        freeformType =
          with types;
          attrsOf (
            nullOr (oneOf [
              bool
              int
              str
              (listOf (either str (attrsOf str)))
            ])
          );
        options = {
          listen = mkOption {
            type = types.str;
            default = "127.0.0.1:8080";
            example = "[::]:8080";
            description = "Where players connect.";
          };
          admin_listen = mkOption {
            type = types.str;
            default = "127.0.0.1:9090";
            description = "Where health and metrics are asked for; not for players.";
          };
        };
      };
      default = { };
      example = {
        listen = "[::]:8080";
        allowed_origins = [ "https://play.example.org" ];
        grace_seconds = 120;
      };
      description = ''
        Settings, named as the README's table names them, without `GAMESERVER_` and in small
        letters. They are in the store, which everybody can read: secrets go to
        {option}`services.gameserver.secrets`.
      '';
    };

    secrets = mkOption {
      type = types.attrsOf types.str;
      default = { };
      example = {
        database_url = "/run/secrets/gameserver-database-url";
      };
      description = ''
        Settings that are secret, named likewise: paths of files that hold them, as text, so that Nix
        does not copy them into the store. systemd hands them to the server alone
        (`LoadCredential=`), so nobody but root needs to be able to read them.
      '';
    };

    openFirewall = mkOption {
      type = types.bool;
      default = false;
      description = "Whether the port of `settings.listen` is opened.";
    };
  };

  config = lib.mkIf cfg.enable {
    assertions = [
      {
        assertion = lib.intersectLists (lib.attrNames settings) (lib.attrNames cfg.secrets) == [ ];
        message = "services.gameserver: a setting is given both openly and as a secret";
      }
    ];

    networking.firewall.allowedTCPPorts = lib.optional cfg.openFirewall (
      lib.toInt (lib.last (lib.splitString ":" cfg.settings.listen))
    );

    systemd.services.gameserver = {
      description = "Multiplayer game server";
      wantedBy = [ "multi-user.target" ];
      wants = [ "network-online.target" ];
      after = [
        "network-online.target"
        "postgresql.service"
      ];

      environment = {
        GAMESERVER_DATA_DIR = "%S/gameserver";
      }
      // lib.mapAttrs' (name: setting: lib.nameValuePair (variable name) (value setting)) settings
      // lib.mapAttrs' (name: _: lib.nameValuePair "${variable name}_FILE" "%d/${name}") cfg.secrets;

      serviceConfig = {
        # The server tells when it is ready, reloads (SIGHUP) and drains.
        Type = "notify-reload";
        ExecStart = "${cfg.package}/bin/gameserver";
        Restart = "on-failure";
        # A drain takes 10 s at most.
        TimeoutStopSec = 15;
        LoadCredential = lib.mapAttrsToList (name: file: "${name}:${file}") cfg.secrets;

        DynamicUser = true;
        StateDirectory = "gameserver";
        StateDirectoryMode = "0700";
        WorkingDirectory = "%S/gameserver";
        UMask = "0077";
        # One for each player and a few more.
        LimitNOFILE = 1048576;

        CapabilityBoundingSet = "";
        DevicePolicy = "closed";
        LockPersonality = true;
        MemoryDenyWriteExecute = true;
        NoNewPrivileges = true;
        PrivateDevices = true;
        PrivateTmp = true;
        PrivateUsers = true;
        ProtectClock = true;
        ProtectControlGroups = true;
        ProtectHome = true;
        ProtectHostname = true;
        ProtectKernelLogs = true;
        ProtectKernelModules = true;
        ProtectKernelTunables = true;
        ProtectProc = "invisible";
        ProtectSystem = "strict";
        RemoveIPC = true;
        RestrictAddressFamilies = [
          "AF_INET"
          "AF_INET6"
          "AF_UNIX"
        ];
        RestrictNamespaces = true;
        RestrictRealtime = true;
        RestrictSUIDSGID = true;
        SystemCallArchitectures = "native";
        SystemCallErrorNumber = "EPERM";
        SystemCallFilter = [
          "@system-service"
          "~@privileged"
        ];
      };
    };
  };
}
