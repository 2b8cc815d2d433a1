//! Peers that a package brings: whether each is there, and what it is told when it is started.
//!
//! None of them is needed. What is not installed is left out of the comparison.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::contestant::{Places, Server};

/// Where Debian puts what `load_module` loads.
const NCHAN_MODULE: &str = "/usr/lib/nginx/modules/ngx_nchan_module.so";
/// Debian keeps servers where only root looks for them.
const BESIDE_PATH: &str = "/usr/sbin";

/// What a packaged peer lacks here; nothing of servers that are always there.
pub(super) fn lacking(server: Server, places: &Places) -> Option<String> {
    match server {
        Server::Uws => {
            let python = &places.python;
            let mut import = Command::new(python);
            import
                .args(["-c", "import socketify"])
                .stderr(Stdio::null());
            let there = import.status().is_ok_and(|status| status.success());
            (!there).then(|| format!("{} has no socketify", python.display()))
        }
        Server::Nchan => (program("nginx").is_none() || !Path::new(NCHAN_MODULE).exists())
            .then(|| "nginx or its module nchan is not installed".to_owned()),
        Server::Nats => program("nats-server")
            .is_none()
            .then(|| "nats-server is not installed".to_owned()),
        Server::LimitSingle
        | Server::LimitBatched
        | Server::BareHttp
        | Server::Answerback
        | Server::Ws
        | Server::SockjsNode => None,
    }
}

/// Where a program of this name is.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from(BESIDE_PATH)]);
    folders.find_map(|folder| Some(folder.join(name)).filter(|program| program.is_file()))
}

/// The command that starts uWebSockets, whose messages have `bytes` bytes.
pub(super) fn uws(places: &Places, address: SocketAddr, bytes: usize) -> Command {
    let mut command = places.command(&places.python);
    command
        .arg(places.peers.join("uws.py"))
        .args([address.port().to_string(), bytes.to_string()]);
    command
}

/// The command that starts a server which is told everything by a file, and that file in its folder.
pub(super) fn configured(
    server: Server,
    places: &Places,
    address: SocketAddr,
    folder: &Path,
) -> anyhow::Result<Command> {
    let (name, text) = match server {
        Server::Nchan => ("nginx", nchan(address, folder)),
        _ => ("nats-server", nats(address, folder)),
    };
    std::fs::create_dir_all(folder)?;
    let file = folder.join("peer.conf");
    std::fs::write(&file, text).with_context(|| format!("{}", file.display()))?;
    let mut command = places.command(program(name).with_context(|| format!("no {name}"))?);
    if server == Server::Nchan {
        // Before it has read the file it would write to the system's log.
        command.args(["-e", "stderr"]);
    }
    command.arg("-c").arg(file);
    Ok(command)
}

/// One worker that keeps what a viewer who is behind has not got.
fn nchan(address: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {folder}/{name};\n"))
        .concat();
    format!(
        "load_module {NCHAN_MODULE};\n\
         worker_processes 1;\n\
         worker_rlimit_nofile 20000;\n\
         daemon off;\n\
         pid {folder}/pid;\n\
         error_log stderr;\n\
         events {{ worker_connections 20000; }}\n\
         http {{\n{temporary}\
         \x20   access_log off;\n\
         \x20   tcp_nodelay on;\n\
         \x20   nchan_max_reserved_memory 256m;\n\
         \x20   nchan_message_buffer_length 10000;\n\
         \x20   nchan_message_timeout 10s;\n\
         \x20   server {{\n\
         \x20       listen {address};\n\
         \x20       location = /publish {{ nchan_publisher websocket; nchan_channel_id viewers; }}\n\
         \x20       location / {{\n\
         \x20           nchan_subscriber websocket;\n\
         \x20           nchan_channel_id viewers;\n\
         \x20           nchan_subscriber_first_message newest;\n\
         \x20       }}\n\
         \x20   }}\n\
         }}\n"
    )
}

/// Its WebSocket listener, and its usual one on any port.
fn nats(address: SocketAddr, folder: &Path) -> String {
    let (host, port) = (address.ip(), address.port());
    let folder = folder.display();
    format!(
        "host: {host}\n\
         port: -1\n\
         log_file: \"{folder}/log\"\n\
         websocket {{ host: {host}, port: {port}, no_tls: true, compression: false }}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_their_names() {
        assert!(program("sh").is_some() && program("no such program").is_none());
    }

    #[test]
    fn peers_listen_where_they_are_told_to() {
        let address = SocketAddr::from(([127, 0, 0, 1], 4321));
        let folder = Path::new("/somewhere");
        let nchan = nchan(address, folder);
        assert!(nchan.contains("        listen 127.0.0.1:4321;\n"));
        assert!(nchan.contains("    scgi_temp_path /somewhere/scgi;\n"));
        assert_eq!(nchan.matches('{').count(), nchan.matches('}').count());
        assert!(nats(address, folder).contains("host: 127.0.0.1, port: 4321,"));
    }
}
