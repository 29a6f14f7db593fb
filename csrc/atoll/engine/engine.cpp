#include "atoll/engine/engine.h"

#include <future>
#include <mutex>
#include <thread>
#include <utility>

#include "atoll/base/limits.h"
#include "atoll/engine/event_queue.h"
#include "atoll/engine/fetcher.h"
#include "atoll/engine/mailbox.h"
#include "atoll/engine/op_table.h"
#include "atoll/engine/shell.h"

namespace reef {

namespace {

Error invalid(const char* what) { return Error{Code::invalid, 0, what}; }

Status validate(const EngineOptions& options) {
  if (options.connections > limits::kMaxConnectionsPerLink) {
    return invalid("a link has 1 to 16 connections, or 0: as its measurement says");
  }
  if (options.heartbeat <= 0 || options.silence <= options.heartbeat ||
      options.repair_grace <= 0 || options.keepalive < 0 || options.dial_timeout <= 0 || options.handshake_timeout <= 0) {
    return invalid("times must be positive, and silence longer than heartbeat");
  }
  return Unit{};
}

}  // namespace

class Engine::Impl {
 public:
  Impl(const PeerId& its_self, std::uint16_t its_port, Wakeup commands_bell, Wakeup events_bell)
      : self(its_self),
        port(its_port),
        mailbox(std::make_shared<Mailbox>(std::move(commands_bell))),
        events(std::move(events_bell)) {}

  void close() {
    const std::lock_guard lock(close_mutex);
    if (reactor.joinable()) {
      mailbox->post(CloseCommand{});
      reactor.join();
    }
  }

  const PeerId self;
  const std::uint16_t port;
  const std::shared_ptr<Mailbox> mailbox;
  OpTable ops;
  EventQueue events;
  std::unique_ptr<Shell> shell;  // the reactor's; others may touch it when the reactor is gone
  std::thread reactor;
  std::mutex close_mutex;
};

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() { close(); }

Result<std::unique_ptr<Engine>> Engine::create(const EngineOptions& options) {
  if (Status status = validate(options); !status.ok()) {
    return status.error();
  }
  std::unique_ptr<TlsContext> tls;
  if (options.tls.wanted()) {
    auto made = TlsContext::create(options.tls);
    if (!made) {
      return made.error();
    }
    tls = std::move(made.value());
  }
  auto listener = listen_on(options.bind_host, options.bind_port);
  if (!listener) {
    return listener.error();
  }
  auto bell = Wakeup::create();
  auto events = Wakeup::create();
  if (!bell || !events) {
    return bell ? events.error() : bell.error();
  }
  const std::uint16_t port = local_port(listener.value().get());
  auto impl = std::make_unique<Impl>(options.self, port, std::move(bell.value()),
                                     std::move(events.value()));
  auto shell = Shell::create(options, std::move(tls), std::move(listener.value()), impl->mailbox,
                             impl->ops, impl->events);
  if (!shell) {
    return shell.error();
  }
  impl->shell = std::move(shell.value());
  impl->reactor = std::thread([reactor = impl->shell.get()] { reactor->run(); });
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

std::uint16_t Engine::port() const { return impl_->port; }

void Engine::expect(const PeerId& peer, const Endpoints& endpoints, const Names& names) {
  if (peer != impl_->self) {
    impl_->mailbox->post(ExpectCommand{peer, endpoints, names});
  }
}

void Engine::dial(const PeerId& peer, const Endpoints& endpoints, const Names& names) {
  if (peer != impl_->self) {
    impl_->mailbox->post(DialCommand{peer, endpoints, nullptr, names});
  }
}

void Engine::dial(const PeerId& peer, const Endpoints& endpoints, const PeerId& relay,
                  const Ticket& ticket, const Names& names) {
  if (peer != impl_->self && relay != impl_->self && relay != peer) {
    auto detour = std::make_shared<const Detour>(
        Detour{relay, ask_relay(impl_->self, peer, ticket)});
    impl_->mailbox->post(DialCommand{peer, endpoints, std::move(detour), names});
  }
}

void Engine::carry(const PeerId& one, const PeerId& other, const Ticket& ticket) {
  if (one != impl_->self && other != impl_->self && one != other) {
    impl_->mailbox->post(CarryCommand{one, other, ticket});
  }
}

void Engine::uncarry(const PeerId& one, const PeerId& other) {
  impl_->mailbox->post(CarryCommand{one, other, std::nullopt});
}

void Engine::drop(const PeerId& peer) { impl_->mailbox->post(DropCommand{peer}); }

void Engine::fence(std::uint64_t attempt, Change kind) {
  impl_->mailbox->post(FenceCommand{attempt, kind});
}

void Engine::install(const View& view, const Starts& starts, Change kind) {
  impl_->mailbox->post(InstallCommand{view, starts, kind});
}

Result<OpId> Engine::submit(OpRequest request) {
  if (in_place(request) && !request.overwrite) {
    set_input_aside(request);
  }
  if (Status status = check_request(request); !status.ok()) {
    return status.error();
  }
  const OpId op = impl_->ops.open(monotonic_now(), !request.quiet);
  request.id = op;
  if (!impl_->mailbox->post(SubmitCommand{std::move(request)})) {
    impl_->ops.withdraw(op);
    return Error{Code::closed, 0, "the engine is closed"};
  }
  return op;
}

void Engine::watch(OpId op) {
  if (impl_->ops.watch(op)) {
    impl_->events.nudge();
  }
}

void Engine::abort(OpId op) { impl_->mailbox->post(AbortCommand{op}); }

void Engine::listen(Channel channel) { impl_->mailbox->post(ListenCommand{channel}); }

std::optional<Outcome> Engine::wait(OpId op, Nanos timeout) { return impl_->ops.wait(op, timeout); }

void Engine::release(OpId op) { impl_->ops.release(op); }

void Engine::publish(Published state) {
  impl_->mailbox->post(PublishCommand{std::make_shared<const Published>(std::move(state))});
}

void Engine::unpublish() { impl_->mailbox->post(PublishCommand{nullptr}); }

Result<OpId> Engine::fetch(const PeerId& donor, std::uint64_t revision, std::uint32_t buffer,
                           std::uint64_t offset, std::span<std::byte> out, Nanos timeout) {
  if (revision == kAnyRevision && buffer != 0) {
    return invalid("only buffer 0 can be fetched at any revision");
  }
  if (out.size() > limits::kMaxStateRequestBytes) {
    return invalid("a fetch has at most 1 GiB");
  }
  const Nanos now = monotonic_now();
  const OpId op = impl_->ops.open(now);
  FetchRequest request{op, donor, revision, buffer, offset, out, kNever};
  request.deadline = timeout >= kNever - now ? kNever : now + timeout;
  if (!impl_->mailbox->post(FetchCommand{request})) {
    impl_->ops.withdraw(op);
    return Error{Code::closed, 0, "the engine is closed"};
  }
  return op;
}

Result<OpId> Engine::probe(const PeerId& peer, const ProbeOptions& options) {
  const Nanos now = monotonic_now();
  ProbeRequest request;
  request.op = impl_->ops.open(now);
  request.peer = peer;
  request.duration = options.duration;
  request.max_bytes = options.max_bytes;
  request.deadline = options.timeout >= kNever - now ? kNever : now + options.timeout;
  if (!impl_->mailbox->post(ProbeCommand{request})) {
    impl_->ops.withdraw(request.op);
    return Error{Code::closed, 0, "the engine is closed"};
  }
  return request.op;
}

int Engine::event_fd() const { return impl_->events.fd(); }
std::vector<Event> Engine::take_events() { return impl_->events.take(); }

EngineStats Engine::stats() const {
  auto answer = std::make_shared<std::promise<EngineStats>>();
  auto future = answer->get_future();
  if (impl_->mailbox->post(StatsCommand{std::move(answer)})) {
    return future.get();
  }
  impl_->close();  // the reactor may still be on its way out
  return impl_->shell->stats();
}

void Engine::close() { impl_->close(); }

}  // namespace reef
