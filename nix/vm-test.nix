# A machine of NixOS that runs the service: it serves, keeps its secrets, reloads and drains.
{ pkgs, module }:
pkgs.testers.runNixOSTest {
  name = "gameserver";

  nodes.machine =
    { pkgs, ... }:
    {
      imports = [ module ];
      services.gameserver = {
        enable = true;
        openFirewall = true;
        settings = {
          listen = "0.0.0.0:8080";
          grace_seconds = 60;
          relay_games = [
            {
              name = "chess";
              title = "Chess";
              description = "Two play, the server passes on";
            }
          ];
        };
        secrets.jwt_private_key = "/etc/key.pem";
      };
      # Made at the start, as a tool for secrets would.
      systemd.services.key = {
        requiredBy = [ "gameserver.service" ];
        before = [ "gameserver.service" ];
        serviceConfig = {
          Type = "oneshot";
          UMask = "0077";
        };
        script = "${pkgs.openssl}/bin/openssl genpkey -algorithm ed25519 -out /etc/key.pem";
      };
    };

  testScript = ''
    machine.wait_for_unit("gameserver.service")
    machine.wait_for_open_port(8080)
    machine.wait_until_succeeds("curl --fail http://127.0.0.1:9090/readyz")
    machine.succeed("curl --fail --request POST http://127.0.0.1:8080/v1/sessions/guest | grep access_token")
    machine.succeed("curl --fail http://127.0.0.1:8080/.well-known/jwks.json | grep Ed25519")

    # The state is the service's alone, and so is the key.
    machine.succeed("test -e /var/lib/private/gameserver/gameserver.db")
    machine.fail("su nobody -s /bin/sh -c 'ls /var/lib/private/gameserver/'")
    machine.succeed("systemd-analyze security --threshold=20 gameserver.service")

    machine.succeed("systemctl reload gameserver.service")
    machine.succeed("curl --fail http://127.0.0.1:9090/readyz")
    machine.succeed("systemctl stop gameserver.service")
    machine.succeed("test $(systemctl show --value --property ExecMainStatus gameserver.service) = 0")
  '';
}
