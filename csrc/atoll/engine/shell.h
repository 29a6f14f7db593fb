// What runs on the reactor thread: sockets on one side, the pure machines on the other, and the
// bookkeeping between them.
//
// Thread: create() and stats() after run() has returned may be called elsewhere; all else runs on
//   the thread that calls run().
// Ownership: owns poller, links, handshakes, core and fetcher. Objects that end while one of their
//   calls may be on the stack are kept until settle().
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "atoll/collective/core.h"
#include "atoll/engine/donor.h"
#include "atoll/engine/engine.h"
#include "atoll/engine/event_queue.h"
#include "atoll/engine/fetcher.h"
#include "atoll/engine/mailbox.h"
#include "atoll/engine/op_table.h"
#include "atoll/net/acceptor.h"
#include "atoll/net/dialer.h"
#include "atoll/net/link.h"
#include "atoll/net/poller.h"

namespace reef {

class Shell final : Ready, LinkOwner, AcceptorOwner, DialerOwner {
 public:
  static Result<std::unique_ptr<Shell>> create(const EngineOptions& options, Fd listener,
                                               std::shared_ptr<Mailbox> mailbox, OpTable& ops,
                                               EventQueue& events);
  ~Shell();
  Shell(const Shell&) = delete;
  Shell& operator=(const Shell&) = delete;

  void run();  // until a CloseCommand
  [[nodiscard]] EngineStats stats() const;

 private:
  struct Peer {
    std::unique_ptr<Link> link;  // null when down
    Nonce nonce{};               // of the present link
    LinkTally past;              // of links that have ended
  };
  struct Leaving {
    std::unique_ptr<Link> link;
    Nanos deadline = 0;
  };

  Shell(const EngineOptions& options, std::unique_ptr<Poller> poller,
        std::shared_ptr<Mailbox> mailbox, OpTable& ops, EventQueue& events);

  // The loop.
  void on_ready(std::uint32_t events) override;  // commands
  Nanos tick(Nanos now);
  Nanos tick_links(Nanos now);
  void settle();
  void finish();
  void refuse_commands();

  // Commands.
  void handle(SubmitCommand& command);
  void handle(AbortCommand& command);
  void handle(ExpectCommand& command);
  void handle(DialCommand& command);
  void handle(DropCommand& command);
  void handle(FenceCommand& command);
  void handle(InstallCommand& command);
  void handle(PublishCommand& command);
  void handle(FetchCommand& command);
  void handle(ResolvedCommand& command);
  void handle(StatsCommand& command);
  void handle(CloseCommand& command);

  // Actions of the machines.
  void pump();
  void act(Send& send);
  void act(Release& release);
  void act(Complete& complete);
  void act(Fenced& fenced);
  void act(Installed& installed);
  void act(Blame& blame);
  void act(FetchAsk& ask);
  void act(FetchEnd& end);
  void forget_buffers(OpId op);
  void end_op(OpId op, Outcome outcome);

  // Links.
  Link* link_to(const PeerId& peer);
  void establish(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets);
  void retire_link(Peer& peer);
  void leave(std::unique_ptr<Link> link, Nanos patience);
  Status serve(Link& link, const FrameHeader& header, std::span<const std::byte> payload);
  Destination place(Link& link, const FrameHeader& header) override;
  Status deliver(Link& link, const FrameHeader& header,
                 std::span<const std::byte> payload) override;
  void ended(Link& link, LinkEnd reason, const std::string& message) override;
  void wants_flush(Link& link) override { to_flush_.push_back(&link); }

  // Handshakes.
  Welcome welcome(const PeerId& peer, const Nonce& nonce) override;
  void accepted(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) override;
  void look_up(std::uint64_t ticket, const std::string& host, std::uint16_t port) override;
  void dialled(const PeerId& peer, const Nonce& nonce, std::vector<Fd> sockets) override;
  void unreachable(const PeerId& peer, const std::string& message) override;

  EngineOptions options_;
  std::unique_ptr<Poller> poller_;
  std::shared_ptr<Mailbox> mailbox_;
  OpTable& ops_;
  EventQueue& events_;
  Registration commands_;
  std::vector<Command> taken_;
  Core core_;
  Fetcher fetcher_;
  Donor donor_;
  std::map<PeerId, Peer> peers_;  // those expected or dialled, until dropped
  std::vector<Leaving> leaving_;
  std::vector<std::unique_ptr<Link>> graveyard_;
  std::vector<Link*> to_flush_;
  std::unique_ptr<Dialer> dialer_;
  std::unique_ptr<Acceptor> acceptor_;
  bool reconsider_ = false;  // who is welcome has changed
  bool closing_ = false;
  Nanos core_due_ = kNever;
  Nanos fetcher_due_ = kNever;
  Nanos links_due_ = kNever;
  std::uint64_t protocol_errors_ = 0;
  std::uint64_t donated_bytes_ = 0;
};

}  // namespace reef
