//! The reference page of the services is what their descriptions say.

use std::fmt::Write as _;

use rt::interface::Reference;

/// The page, from the package's folder.
const PAGE: &str = "../../docs/services.md";

const SERVICES: &[Reference] = &[
    api::memory::MemoryClient::REFERENCE,
    api::files::FileClient::REFERENCE,
    api::process::ProcessClient::REFERENCE,
    api::console::ConsoleClient::REFERENCE,
    api::supervisor::SupervisorClient::REFERENCE,
    api::echo::EchoClient::REFERENCE,
];

const INTRODUCTION: &str = "\
# The services

Every server's operations, as [`servers/api`](../servers/api/src/lib.rs) describes them: servers implement them, everybody else
calls them by the client of that name. A request and its reply are a message of four words; what does not fit there
is in the caller's window ([`rt::window`](../servers/rt/src/window.rs)). Each operation may be refused with an error number
of POSIX. How a service is written is in [server-tutorial.md](server-tutorial.md).

This page is written by `UPDATE_DOCS=1 cargo test -p api`, and a test compares it with the descriptions.
";

fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for service in SERVICES {
        let about = text(service.about);
        write!(
            page,
            "\n## {}\n\n{about}\n\n| number | operation | what it does |\n|---|---|---|\n",
            service.name
        )
        .expect("a string grows");
        for operation in service.operations {
            let arguments: Vec<String> =
                operation.arguments.iter().map(|(name, kind)| format!("{name}: {kind}")).collect();
            let value =
                if operation.value == "()" { String::new() } else { format!(" -> {}", operation.value) };
            let call = format!("{}({}){value}", operation.name, arguments.join(", "));
            writeln!(page, "| {} | `{call}` | {} |", operation.number, text(operation.about))
                .expect("a string grows");
        }
    }
    page
}

/// A documentation comment as a line: what it links to is in the source.
fn text(comment: &str) -> String {
    comment.trim().replace("[`", "`").replace("`]", "`").replace('|', "\\|")
}

#[test]
fn the_page_is_what_the_descriptions_say() {
    let wanted = page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(PAGE, &wanted).expect("the page can be written");
    }
    let found = std::fs::read_to_string(PAGE).unwrap_or_default();
    assert!(found == wanted, "docs/services.md is out of date: run `UPDATE_DOCS=1 cargo test -p api`");
}

#[test]
fn no_two_operations_have_one_number() {
    for service in SERVICES {
        let mut numbers: Vec<u64> = service.operations.iter().map(|operation| operation.number).collect();
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|two| two[0] < two[1]), "{}", service.name);
    }
}
