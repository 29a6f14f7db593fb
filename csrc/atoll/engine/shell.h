// What runs on the reactor thread: sockets on one side, the pure machines on the other, and the
// bookkeeping between them.
//
// Thread: create() and stats() after run() has returned may be called elsewhere; all else runs on
//   the thread that calls run().
// Ownership: owns poller, links, handshakes, core and fetcher. Objects that end while one of their
//   calls may be on the stack are kept until settle().
#pragma once

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "atoll/collective/core.h"
#include "atoll/engine/donor.h"
#include "atoll/engine/engine.h"
#include "atoll/engine/event_queue.h"
#include "atoll/engine/fetcher.h"
#include "atoll/engine/mailbox.h"
#include "atoll/engine/op_table.h"
#include "atoll/engine/prober.h"
#include "atoll/net/acceptor.h"
#include "atoll/net/dialer.h"
#include "atoll/net/lifeline.h"
#include "atoll/net/link.h"
#include "atoll/net/local_acceptor.h"
#include "atoll/net/local_dialer.h"
#include "atoll/net/poller.h"
#include "atoll/net/relay.h"

namespace reef {

class Shell final : Ready,
                    LinkOwner,
                    AcceptorOwner,
                    DialerOwner,
                    RelayOwner,
                    LocalAcceptorOwner,
                    LocalDialerOwner {
 public:
  static Result<std::unique_ptr<Shell>> create(const EngineOptions& options,
                                               std::unique_ptr<TlsContext> tls, Fd listener,
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
    Transport transport = Transport::none;
    bool checksums = false;      // on the frames of the present link
    std::vector<Route> route;    // by which this side has dialled it; empty: the peer has
    std::optional<PeerId> relay;   // through which the present link goes
    std::optional<PeerId> called;  // the relay whose call for it was answered last
    Endpoints endpoints;         // of the peer, if known
    Names names;                 // one of which its certificate must carry; empty: any may
    LinkTally past;              // of links that have ended
    std::uint64_t past_retransmitted = 0;  // likewise
    LifeWord* life = nullptr;    // shared memory: this side's word, held
    std::uint64_t watch = 0;     // and the ticket for the peer's
  };
  struct Leaving {
    std::unique_ptr<Link> link;
    Nanos deadline = 0;
  };

  Shell(const EngineOptions& options, std::unique_ptr<TlsContext> tls,
        std::unique_ptr<Poller> poller,
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
  void handle(ListenCommand& command);
  void handle(ExpectCommand& command);
  void handle(DialCommand& command);
  void handle(CarryCommand& command);
  void handle(DropCommand& command);
  void handle(FenceCommand& command);
  void handle(InstallCommand& command);
  void handle(PublishCommand& command);
  void handle(FetchCommand& command);
  void handle(ProbeCommand& command);
  void handle(ResolvedCommand& command);
  void handle(DiedCommand& command);
  void handle(StatsCommand& command);
  void handle(CloseCommand& command);

  // Actions of the machines.
  void pump();
  void act(Send& send);
  void act(DataReady& ready);
  void act(Release& release);
  void act(Complete& complete);
  void act(Fenced& fenced);
  void act(Installed& installed);
  void act(Blame& blame);
  void act(Offered& offered);
  void act(FetchAsk& ask);
  void act(FetchEnd& end);
  void act(ProbeSend& send);
  void act(ProbeEnd& end);
  void forget_buffers(OpId op);
  void end_op(OpId op, Outcome outcome);

  // Links.
  Link* link_to(const PeerId& peer);
  [[nodiscard]] std::uint32_t connections_to(const PeerId& peer);
  [[nodiscard]] std::uint32_t share_of_connections() const;
  [[nodiscard]] std::uint32_t most_connections();
  void establish(const PeerId& peer, const Hello& ack, Streams streams, std::vector<Route> route);
  void establish(const PeerId& peer, const Nonce& nonce, Transport transport,
                 std::vector<std::unique_ptr<Connection>> connections);
  std::unique_ptr<Connection> connection_over(std::unique_ptr<Stream> stream, bool checksums) const;
  void mend();
  void share_lines();
  Nanos pace_links(Nanos now);
  Nanos observe_paths(Nanos now);
  void retire_link(Peer& peer);
  void leave(std::unique_ptr<Link> link, Nanos patience);
  Status serve(Link& link, const FrameHeader& header, std::span<const std::byte> payload);
  Status answer_probe(Link& link, const FrameHeader& header);
  Status end_probe(Link& link, const FrameHeader& header, std::span<const std::byte> payload);
  Destination place(Link& link, const FrameHeader& header) override;
  Status deliver(Link& link, const FrameHeader& header,
                 std::span<const std::byte> payload) override;
  void displaced(Link& link, const FrameHeader& header) override;
  Repair lost(Link& link, std::uint32_t slot) override;
  void ended(Link& link, LinkEnd reason, const std::string& message) override;
  bool pull(Link& link, OutFrame& frame) override;
  void keeps_pace(Link&, Nanos until) override { pace_due_ = std::min(pace_due_, until); }
  void wants_flush(Link& link) override { to_flush_.push_back(&link); }

  // Handshakes.
  Welcome welcome(const PeerId& peer, const Nonce& nonce) override;
  [[nodiscard]] bool may_be(const PeerId& peer, const std::string& holder) const override;
  void refused(const std::string& message) override;
  void impostor(const std::string& message) override;
  void accepted(const PeerId& peer, const Hello& ack, Streams streams) override;
  Answer repair(const Hello& hello, Hello& ack) override;
  void repaired(const Hello& hello, std::unique_ptr<Stream> stream) override;
  void look_up(std::uint64_t ticket, const std::string& host, std::uint16_t port) override;
  void dialled(const PeerId& peer, const Hello& ack, Streams streams, const Route& route) override;
  void unreachable(const PeerId& peer, const std::string& message) override;
  bool describe(const PeerId& peer, std::uint32_t slot, Hello& hello) override;
  void redialled(const PeerId& peer, const Hello& ack, std::unique_ptr<Stream> stream) override;
  void irreparable(const PeerId& peer, std::uint32_t slot, const std::string& message) override;
  void contact_lost() override { reconsider_ = true; }

  // Relays (shell_relay.cpp).
  void relay(FrameType what, const Hello& hello, Fd socket) override;
  bool call(const PeerId& target, const PeerId& asker, const Nonce& nonce) override;
  void heard_call(const PeerId& relay, std::span<const std::byte> payload);
  void answered(Fd socket) override;

  // Peers of this host (shell_local.cpp).
  void meet_locally(std::uint16_t port);
  void dial(const PeerId& peer, const Endpoints& endpoints, std::shared_ptr<const Detour> detour);
  [[nodiscard]] bool in_contact(const PeerId& peer) const;
  bool cancel_dial(const PeerId& peer);
  void accepted(const PeerId& peer, const Nonce& nonce, LocalChannel channel) override;
  void dialled(const PeerId& peer, const Nonce& nonce, LocalChannel channel) override;
  void not_local(const DialTarget& target, const std::string& why) override;
  void not_shared(const PeerId& peer, const std::string& why) override;
  void establish(const PeerId& peer, const Nonce& nonce, LocalChannel channel);
  void let_go(Peer& peer);  // of its line of life, before the link's memory goes

  EngineOptions options_;
  std::unique_ptr<TlsContext> tls_;  // null: plain TCP
  std::unique_ptr<Poller> poller_;
  std::shared_ptr<Mailbox> mailbox_;
  OpTable& ops_;
  EventQueue& events_;
  Registration commands_;
  std::vector<Command> taken_;
  Core core_;
  Fetcher fetcher_;
  Donor donor_;
  Prober prober_;
  ProbeAnswers probe_answers_;
  std::map<PeerId, Peer> peers_;  // those expected or dialled, until dropped
  std::vector<Leaving> leaving_;
  std::vector<std::unique_ptr<Link>> graveyard_;
  std::vector<Link*> to_flush_;
  struct Gap {
    PeerId peer;
    std::uint32_t slot = 0;
    std::string verdict;
  };
  std::vector<Gap> to_redial_;
  std::vector<Gap> hopeless_;
  std::unique_ptr<Dialer> dialer_;
  std::unique_ptr<Acceptor> acceptor_;
  std::unique_ptr<Relay> relay_;
  std::unique_ptr<LocalDialer> local_dialer_;      // null: the network only
  std::unique_ptr<LocalAcceptor> local_acceptor_;  // null, too, when its name is taken
  std::unique_ptr<HeldLives> lives_;               // made and unmade by run()'s thread
  std::unique_ptr<DeathWatch> deaths_;             // null: not here
  bool reconsider_ = false;  // who is welcome has changed
  bool closing_ = false;
  Nanos core_due_ = kNever;
  Nanos fetcher_due_ = kNever;
  Nanos prober_due_ = kNever;
  Nanos links_due_ = kNever;
  Nanos pace_due_ = kNever;
  Nanos observed_at_ = kNever;
  LinePacer line_;              // of all links on long paths
  std::vector<Pacer*> paced_;  // while observe_paths() runs
  std::optional<bool> by_bbr_;  // whether links on long paths send by BBR
  std::uint64_t protocol_errors_ = 0;
  std::uint64_t impostors_ = 0;  // whom this side has dialled
  std::uint64_t donated_bytes_ = 0;
  // When such an event was sent last; kNever: never.
  Nanos refused_told_ = kNever;
  Nanos not_local_told_ = kNever;
};

}  // namespace reef
