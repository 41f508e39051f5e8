//! The figures, each with its name and what it means. `docs/metrics.md` is made of this page, and
//! of the two families that [`crate::http`] adds, whose label is its own table of addresses.

use super::metrics::{Counter, Counters, Histogram, Kind, Level, Metric, Observed, label};

label! {
    /// What a client sent.
    Received("type") {
        /// A wish to play.
        Command = "command",
        /// A line for all.
        Chat = "chat",
        /// A sign of life with an answer.
        Ping = "ping",
        /// Nothing that the protocol knows.
        Malformed = "malformed",
    }
}

label! {
    /// What became of a command.
    CommandResult("result") {
        /// It changed the match.
        Applied = "applied",
        /// It had been applied before, and was acknowledged again.
        Repeated = "repeated",
        /// Against the rules, or the state.
        Refused = "refused",
        /// Too many changes wait for the store.
        Overloaded = "overloaded",
        /// The socket sent more than it may.
        RateLimited = "rate_limited",
    }
}

label! {
    /// How a socket ended.
    Ended("code") {
        /// The match is over, or the client left in order.
        Normal = "1000",
        /// No sign of life, or the client went away.
        Away = "1001",
        /// A frame that breaks RFC 6455.
        Protocol = "1002",
        /// The wrong kind of frame.
        Kind = "1003",
        /// Not UTF-8.
        Text = "1007",
        /// Signed out, left, or flooding.
        Policy = "1008",
        /// Too big.
        Size = "1009",
        /// Told to come back: a drain, or the match moves.
        ComeBack = "1012",
        /// Told to try later: the store is away.
        TryLater = "1013",
        /// The player came on another socket.
        Replaced = "4001",
        /// Too slow to read: its queue ran over.
        TooSlow = "4002",
        /// The client's own code.
        Other = "other",
        /// The connection broke.
        Broken = "broken",
    }
}

impl Ended {
    /// By the code of the close frame; `None` if there was none.
    pub fn by(code: Option<u16>) -> Self {
        match code {
            None => Self::Broken,
            Some(1000) => Self::Normal,
            Some(1001) => Self::Away,
            Some(1002) => Self::Protocol,
            Some(1003) => Self::Kind,
            Some(1007) => Self::Text,
            Some(1008) => Self::Policy,
            Some(1009) => Self::Size,
            Some(1012) => Self::ComeBack,
            Some(1013) => Self::TryLater,
            Some(4001) => Self::Replaced,
            Some(4002) => Self::TooSlow,
            Some(_) => Self::Other,
        }
    }
}

label! {
    /// Why the store did not do as it was asked.
    StoreFailure("error") {
        /// It can't be reached, or can't write.
        Unavailable = "unavailable",
        /// Too many calls wait.
        Busy = "busy",
        /// What was to be written contradicts what is there: a name that is taken, say.
        Conflict = "conflict",
        /// What was read makes no sense.
        Corrupt = "corrupt",
    }
}

label! {
    /// How a match came to this node, or went.
    Ownership("change") {
        /// Taken: nobody had it, or whoever had it is gone.
        Taken = "taken",
        /// Lost: another node has it, or the lease ran out.
        Lost = "lost",
    }
}

label! {
    /// What became of a wish to keep the lease.
    Renewal("result") {
        /// It holds on.
        Renewed = "renewed",
        /// It had run out: the node began anew.
        Lost = "lost",
        /// The store did not answer.
        Failed = "failed",
    }
}

label! {
    /// What was passed on to another node.
    Forwarded("result") {
        /// A request that it answered.
        Request = "request",
        /// A socket that it took.
        Socket = "socket",
        /// It did not answer.
        Failed = "failed",
    }
}

label! {
    /// How somebody signs in, or is refused.
    SignIn("result") {
        /// By a new guest account.
        Guest = "guest",
        /// By name and password.
        Password = "password",
        /// By a refresh token.
        Refresh = "refresh",
        /// A name or a password was wrong.
        WrongPassword = "wrong_password",
        /// A refresh token was unknown, expired, or used before.
        BadRefresh = "bad_refresh",
    }
}

label! {
    /// What there were too many of in a minute.
    PerMinute("limit") {
        /// Wrong passwords for one user name.
        SignIns = "sign_ins",
        /// New matches, tickets and quick plays of one user.
        Matches = "matches",
        /// New accounts from one address.
        Accounts = "accounts",
    }
}

/// See the help texts: they are the documentation.
macro_rules! figures {
    ($($type:ty, $constant:ident = $make:expr;)*) => {
        $(#[allow(missing_docs, reason = "the help text is the documentation")]
        pub static $constant: $type = $make;)*

        /// All of them, in the order in which they are shown.
        pub static ALL: &[&dyn Metric] = &[$(&$constant),*];
    };
}

const GAUGE: Kind = Kind::Gauge;

figures! {
    Observed, BUILD = Observed::new(GAUGE, "gameserver_build_info", &["version"],
        "The version that runs; always 1.");
    Level, CONNECTIONS = Level::new("gameserver_connections",
        "Connections that are open, of players and to the admin listener, sockets included.");
    Counter, CONNECTIONS_ACCEPTED = Counter::new("gameserver_connections_accepted_total",
        "Connections that were accepted.");
    Level, REQUESTS_ACTIVE = Level::new("gameserver_http_requests_active",
        "Requests that are being answered.");
    Counter, SIGN_UPS = Counter::new("gameserver_sign_ups_total",
        "Accounts that were registered with a name; guests are not among them.");
    Counters<SignIn, 5>, SIGN_INS = Counters::new("gameserver_sign_ins_total",
        "Sign-ins, and those that were refused.");
    Level, PASSWORDS_WAITING = Level::new("gameserver_passwords_waiting",
        "Sign-ins and sign-ups whose passwords are hashed or wait for it; 256 at most, then they are \
         answered 503.");
    Counters<PerMinute, 3>, RATE_LIMITED = Counters::new("gameserver_rate_limited_total",
        "Requests that were answered 429, by what there were too many of in a minute.");
    Counter, TOKENS_REFUSED = Counter::new("gameserver_tokens_refused_total",
        "Access tokens that were refused: expired, revoked, or not ours.");

    Observed, SOCKETS = Observed::new(GAUGE, "gameserver_sockets", &["state"],
        "Sockets by what they do: idle, running, writing (the client reads too slowly), closing.");
    Observed, PLAYERS = Observed::new(GAUGE, "gameserver_players_connected", &[],
        "Seats whose player is connected.");
    Counter, SOCKETS_OPENED = Counter::new("gameserver_sockets_opened_total",
        "Sockets that were opened.");
    Counters<Ended, 13>, SOCKETS_CLOSED = Counters::new("gameserver_sockets_closed_total",
        "Sockets that ended, by close code; 4002 is a queue that ran over.");
    Counters<Received, 4>, MESSAGES_RECEIVED = Counters::new("gameserver_messages_received_total",
        "Messages that clients sent.");
    Counter, MESSAGES_SENT = Counter::new("gameserver_messages_sent_total",
        "Messages that were written to sockets.");
    Counter, BYTES_RECEIVED = Counter::new("gameserver_socket_received_bytes_total",
        "Bytes that were read from sockets.");
    Counter, BYTES_SENT = Counter::new("gameserver_socket_sent_bytes_total",
        "Bytes that were written to sockets.");
    Observed, OUTBOX_MESSAGES = Observed::new(GAUGE, "gameserver_outbox_messages", &[],
        "Messages that wait to be written, of all sockets.");
    Observed, OUTBOX_LARGEST = Observed::new(GAUGE, "gameserver_outbox_messages_largest", &[],
        "Messages that wait to be written to the socket that is furthest behind; 4,096 close it.");

    Observed, MATCHES = Observed::new(GAUGE, "gameserver_matches", &["game", "state"],
        "Matches in memory.");
    Observed, MATCHES_LOADED = Observed::new(GAUGE, "gameserver_matches_loaded", &[],
        "Matches in memory, with those that are being loaded.");
    Counter, MATCHES_CREATED = Counter::new("gameserver_matches_created_total",
        "Matches that were made here.");
    Counter, MATCHES_ENDED = Counter::new("gameserver_matches_ended_total",
        "Matches that ended here.");
    Counter, MATCHES_RATED = Counter::new("gameserver_matches_rated_total",
        "Matches that ended here and moved ratings.");
    Counters<CommandResult, 5>, COMMANDS = Counters::new("gameserver_commands_total",
        "Commands of players by what became of them.");
    Histogram, TICK_TIME = Histogram::of_times("gameserver_tick_duration_seconds",
        "How long steps of `ticks` games took, with what they told.");
    Counter, TICKS_LATE = Counter::new("gameserver_ticks_late_total",
        "Steps that came late by half a step and more, and those left out while a match stood still \
         for the store.");

    Level, PLUGINS = Level::new("gameserver_plugins",
        "Games of the plugins' directory that matches can begin with.");
    Counter, PLUGINS_REFUSED = Counter::new("gameserver_plugins_refused_total",
        "Files of that directory that are no game; the log says why.");
    Counter, PLUGIN_CALLS = Counter::new("gameserver_plugin_calls_total",
        "Calls of functions of plugins.");
    Counter, PLUGIN_FUEL = Counter::new("gameserver_plugin_fuel_total",
        "Fuel that they took: about a unit for each instruction.");
    Counter, PLUGINS_FAILED = Counter::new("gameserver_plugin_matches_failed_total",
        "Matches whose plugin failed; the log says how.");

    Observed, TICKETS_SEARCHING = Observed::new(GAUGE, "gameserver_tickets_searching", &[],
        "Tickets that wait for others, in the whole store, as this node saw it last.");
    Histogram, MATCHMAKING_WAIT = Histogram::of_times("gameserver_matchmaking_wait_seconds",
        "How long tickets waited that this node brought together.");

    Observed, LOG_WAITING = Observed::new(GAUGE, "gameserver_log_changes_waiting", &[],
        "Changes of matches that wait for the store; 16,384 at most, then commands are refused.");
    Histogram, COMMIT_TIME = Histogram::of_times("gameserver_commit_duration_seconds",
        "How long the store took for a commit of changes, failed tries included.");
    Histogram, COMMIT_CHANGES = Histogram::of_sizes("gameserver_commit_changes",
        "Changes of matches that shared a commit.");
    Counter, COMMITS_FAILED = Counter::new("gameserver_commits_failed_total",
        "Commits that failed and were tried again; matches stand still meanwhile.");
    Counter, CHANGES_REFUSED = Counter::new("gameserver_changes_refused_total",
        "Changes that the store refused since another node writes to the match.");
    Histogram, STORE_TIME = Histogram::of_times("gameserver_store_call_duration_seconds",
        "How long calls of the store took, the wait for it included.");
    Level, STORE_CALLS = Level::new("gameserver_store_calls_active",
        "Calls of the store that are under way or wait, commits of the log over PostgreSQL apart.");
    Counters<StoreFailure, 4>, STORE_ERRORS = Counters::new("gameserver_store_errors_total",
        "Calls of the store that failed.");
    Observed, STORE_CONNECTIONS = Observed::new(GAUGE, "gameserver_store_connections", &["state"],
        "Connections to PostgreSQL: idle or used.");
    Observed, STORE_WAITING = Observed::new(GAUGE, "gameserver_store_calls_waiting", &[],
        "Calls that wait for a connection to PostgreSQL.");

    Observed, NODES = Observed::new(GAUGE, "gameserver_nodes", &[],
        "Nodes that hold a lease, as this one saw it last; 1 if it is alone.");
    Counters<Renewal, 3>, LEASE_RENEWALS = Counters::new("gameserver_lease_renewals_total",
        "Renewals of this node's lease.");
    Counters<Ownership, 2>, OWNERSHIP = Counters::new("gameserver_ownership_changes_total",
        "Matches that this node took from the store to play them, and those that it lost.");
    Level, SOCKETS_FORWARDED = Level::new("gameserver_sockets_forwarded",
        "Sockets that this node passes on to the nodes that play their matches.");
    Counters<Forwarded, 3>, FORWARDS = Counters::new("gameserver_forwards_total",
        "What was passed on to the node that plays the match.");

    Observed, TASKS = Observed::new(GAUGE, "gameserver_runtime_tasks", &[],
        "Tasks that are alive: one for each connection, and a few more.");
    Observed, TASKS_WAITING = Observed::new(GAUGE, "gameserver_runtime_tasks_waiting", &[],
        "Tasks that are ready and wait in the queue that all threads share.");
    Observed, BUSY_SECONDS = Observed::new(Kind::Counter, "gameserver_runtime_busy_seconds_total",
        &[], "Time that the threads which run tasks were busy.");
    Observed, ALLOCATOR = Observed::new(GAUGE, "gameserver_allocator_bytes", &["state"],
        "Memory of the allocator: allocated to objects, and resident for them.");
    Observed, CPU_SECONDS = Observed::new(Kind::Counter, "process_cpu_seconds_total", &[],
        "CPU time of the process.");
    Observed, RESIDENT = Observed::new(GAUGE, "process_resident_memory_bytes", &[],
        "Memory of the process that is resident.");
    Observed, MEMORY_LIMIT = Observed::new(GAUGE, "gameserver_memory_limit_bytes", &[],
        "Memory that the control group allows, where one does.");
    Observed, OPEN_FILES = Observed::new(GAUGE, "process_open_fds", &[],
        "Files and sockets that are open.");
    Observed, MAX_FILES = Observed::new(GAUGE, "process_max_fds", &[],
        "Files and sockets that may be open.");
    Observed, STARTED = Observed::new(GAUGE, "process_start_time_seconds", &[],
        "When the process started, in seconds since 1970.");
}
