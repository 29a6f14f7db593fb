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
  if (options.connections < 1 || options.connections > limits::kMaxConnectionsPerLink) {
    return invalid("a link has 1 to 16 connections");
  }
  if (options.heartbeat <= 0 || options.silence <= options.heartbeat ||
      options.dial_timeout <= 0 || options.handshake_timeout <= 0) {
    return invalid("times must be positive, and silence longer than heartbeat");
  }
  return Unit{};
}

bool overlap(std::span<const std::byte> a, std::span<const std::byte> b) {
  const auto first = reinterpret_cast<std::uintptr_t>(a.data());
  const auto second = reinterpret_cast<std::uintptr_t>(b.data());
  return !a.empty() && !b.empty() && first < second + b.size() && second < first + a.size();
}

// What can be refused before the op is on its way. The core looks again, and at more.
Status validate(const OpRequest& request) {
  const std::uint64_t width = dtype_bytes(request.dtype);
  if (request.count > limits::kMaxVectorBytes / width) {
    return invalid("an op has at most 2^40 bytes");
  }
  const std::uint64_t bytes = request.count * width;
  if (request.kind == OpKind::barrier ? bytes != 0 : request.out.size() != bytes) {
    return invalid("the output must hold count elements, and a barrier none");
  }
  if (request.in.size() != bytes && !(request.kind == OpKind::broadcast && request.in.empty())) {
    return invalid("the input must hold count elements");
  }
  if (overlap(request.in, request.out)) {
    return invalid("input and output must not overlap");
  }
  if (request.channel >= limits::kMaxChannels) {
    return invalid("there are channels 0 to 4095");
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
  auto shell = Shell::create(options, std::move(listener.value()), impl->mailbox, impl->ops,
                             impl->events);
  if (!shell) {
    return shell.error();
  }
  impl->shell = std::move(shell.value());
  impl->reactor = std::thread([reactor = impl->shell.get()] { reactor->run(); });
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

std::uint16_t Engine::port() const { return impl_->port; }

void Engine::expect(const PeerId& peer) {
  if (peer != impl_->self) {
    impl_->mailbox->post(ExpectCommand{peer});
  }
}

void Engine::dial(const PeerId& peer, const std::string& host, std::uint16_t port) {
  if (peer != impl_->self) {
    impl_->mailbox->post(DialCommand{peer, host, port});
  }
}

void Engine::drop(const PeerId& peer) { impl_->mailbox->post(DropCommand{peer}); }

void Engine::fence(std::uint64_t attempt, Change kind) {
  impl_->mailbox->post(FenceCommand{attempt, kind});
}

void Engine::install(const View& view, const Starts& starts, Change kind) {
  impl_->mailbox->post(InstallCommand{view, starts, kind});
}

Result<OpId> Engine::submit(OpRequest request) {
  if (Status status = validate(request); !status.ok()) {
    return status.error();
  }
  const OpId op = impl_->ops.open(monotonic_now());
  request.id = op;
  if (!impl_->mailbox->post(SubmitCommand{std::move(request)})) {
    impl_->ops.withdraw(op);
    return Error{Code::closed, 0, "the engine is closed"};
  }
  return op;
}

void Engine::abort(OpId op) { impl_->mailbox->post(AbortCommand{op}); }

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
